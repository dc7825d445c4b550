"""What native code stands in for, as long as nobody has put something of his own in its place."""

from __future__ import annotations

import _socket
import socket
import sys
from types import ModuleType
from typing import Any


def own(owner: ModuleType | type, name: str) -> Any:
    """A function or a class of a module, or a method of a class, as the module defines it; ``None`` where somebody has
    replaced it already.
    """
    found = getattr(owner, name)
    function = vars(found).get("__init__") if isinstance(found, type) else found
    module = sys.modules[owner.__module__] if isinstance(owner, type) else owner
    return found if getattr(function, "__globals__", None) is vars(module) else None


#: What native sockets stand in for, and what asyncio calls of it for each connection. The class inherits ``connect``.
SOCKET = own(socket, "socket")
CONNECT = _socket.socket.connect
ACCEPT = SOCKET and own(SOCKET, "accept")
