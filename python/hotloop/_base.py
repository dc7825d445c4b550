"""The two classes that a loop derives from, native and asyncio's, as its parts see them."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from . import _hotloop
from ._registry import TransportsView

__all__ = ["LoopBase"]


class LoopBase(_hotloop.Loop, asyncio.SelectorEventLoop):
    """What every part of a loop stands on: natively what there is natively, all else from asyncio."""

    # Which driver the native constructor makes.
    _by_completion: ClassVar[bool] = False

    if TYPE_CHECKING:
        # What asyncio's classes have without telling the type checker.
        _selector: selectors.BaseSelector

        @property
        def _transports(self) -> TransportsView: ...

        _csock: socket.socket

        def _process_events(self, event_list: list[tuple[selectors.SelectorKey, int]]) -> None: ...

        _ssock: socket.socket
        _watcher: Any
        _signal_handlers: dict[int, asyncio.Handle]

        # What the parts use of each other.
        _add_reader: Callable[..., asyncio.Handle]
        _remove_reader: Callable[..., bool]
        _is_unaltered: Callable[..., bool]

        def _check_closed(self) -> None: ...
        def _ensure_fd_no_transport(self, fd: Any) -> None: ...
        def _child_watcher_callback(self, pid: int, returncode: int, transp: Any) -> None: ...
        async def _ensure_resolved(
            self,
            address: Any,
            *,
            family: int = 0,
            type: int = socket.SOCK_STREAM,
            proto: int = 0,
            flags: int = 0,
            loop: asyncio.AbstractEventLoop,
        ) -> list[Any]: ...


if sys.platform == "win32":
    raise ImportError("hotloop does not run on Windows yet")
