"""What native code stands in for, as long as nobody has put something of his own in its place."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def own(module: ModuleType, name: str) -> Any:
    """A function or a class as its module defines it; ``None`` where somebody has replaced it already."""
    found = getattr(module, name)
    function = vars(found).get("__init__") if isinstance(found, type) else found
    return found if getattr(function, "__globals__", None) is vars(module) else None
