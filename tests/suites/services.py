"""What must run beside a suite."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator


@contextlib.contextmanager
def serve(services: Collection[str]) -> Iterator[dict[str, str]]:
    """Runs `services`; what a library's arguments and environment may name of them, as in `{redis_port}`."""
    yield {}
