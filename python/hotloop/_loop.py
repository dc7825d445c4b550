"""The selector loop: native scheduling, watching and transports over asyncio's own cold paths."""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections.abc import Callable, Iterator
from typing import Any

from . import _hotloop
from ._selector import LoopSelector

__all__ = ["SelectorEventLoop"]


class SelectorEventLoop(_hotloop.Loop, asyncio.SelectorEventLoop):
    """An event loop on readiness notification: ``asyncio.SelectorEventLoop``, natively.

    :param selector: a selector of the ``selectors`` module; the loop runs on the best facility of the platform and
        closes the one it is given.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        if selector is not None:
            selector.close()
        super().__init__(LoopSelector(self))

    # Running

    def run_forever(self) -> None:
        """Run until ``stop()`` is called."""
        self._begin_running()
        try:
            super().run_forever()
        finally:
            self._end_running()

    # Scheduled callbacks, for programs that look at asyncio's private queues.

    @property
    def _ready(self) -> ReadyView:
        return ReadyView(self)

    @_ready.setter
    def _ready(self, handles: Any) -> None:
        # asyncio's constructor puts an empty queue here; the native one is in its place already.
        for handle in handles:
            self._add_callback(handle)

    @property
    def _scheduled(self) -> ScheduledView:
        return ScheduledView(self)

    @_scheduled.setter
    def _scheduled(self, timers: Any) -> None:
        if len(timers):
            raise AttributeError("timers are scheduled with call_at()")

    # Watching descriptors. The public methods are asyncio's: they check, then come here.

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        self._check_closed()
        handle = self._new_handle(callback, args)
        replaced = self._watch_read(_number(fd), handle)
        if replaced is not None:
            replaced.cancel()
        return handle

    def _remove_reader(self, fd: Any) -> bool:
        if self.is_closed():
            return False
        removed = self._unwatch_read(_number(fd, self))
        if removed is None:
            return False
        removed.cancel()
        return True

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        self._check_closed()
        handle = self._new_handle(callback, args)
        replaced = self._watch_write(_number(fd), handle)
        if replaced is not None:
            replaced.cancel()
        return handle

    def _remove_writer(self, fd: Any) -> bool:
        if self.is_closed():
            return False
        removed = self._unwatch_write(_number(fd, self))
        if removed is None:
            return False
        removed.cancel()
        return True

    # Transports

    def _make_socket_transport(
        self,
        sock: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.Server | None = None,
        context: Any = None,
    ) -> asyncio.Transport:
        from ._transports import make_socket_transport

        return make_socket_transport(self, sock, protocol, waiter, extra, server)


class ReadyView:
    """The callbacks that are ready, as asyncio's ``deque`` of them would look."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return len(self._loop._ready_handles())

    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._loop._ready_handles())

    def __getitem__(self, index: int) -> asyncio.Handle:
        return self._loop._ready_handles()[index]

    def append(self, handle: asyncio.Handle) -> None:
        """Add a handle behind all others."""
        self._loop._add_callback(handle)

    def appendleft(self, handle: asyncio.Handle) -> None:
        """Add a handle before all others."""
        self._loop._ready_appendleft(handle)

    def popleft(self) -> asyncio.Handle:
        """Take the oldest handle."""
        handle = self._loop._ready_popleft()
        if handle is None:
            raise IndexError("pop from an empty deque")
        return handle

    def clear(self) -> None:
        """Drop all handles."""
        self._loop._clear_scheduled(False)


class ScheduledView:
    """The timers that wait, as asyncio's heap of them would look."""

    def __init__(self, loop: SelectorEventLoop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return len(self._loop._scheduled_handles())

    def __iter__(self) -> Iterator[asyncio.TimerHandle]:
        return iter(self._loop._scheduled_handles())

    def __getitem__(self, index: int) -> asyncio.TimerHandle:
        return self._loop._scheduled_handles()[index]

    def clear(self) -> None:
        """Drop all timers."""
        self._loop._clear_scheduled(True)


def _number(fileobj: Any, removing_from: SelectorEventLoop | None = None) -> int:
    """The descriptor number of a file object, with the exceptions of the ``selectors`` module."""
    if type(fileobj) is int and fileobj >= 0:
        return fileobj
    try:
        return selectors._fileobj_to_fd(fileobj)  # type: ignore[attr-defined, no-any-return]
    except ValueError:
        # A selector still finds a file object that was closed after it was registered.
        if removing_from is not None:
            for key in removing_from._selector.get_map().values():
                if key.fileobj is fileobj:
                    return key.fd
        raise


if sys.platform == "win32":
    raise ImportError("hotloop does not run on Windows yet")
