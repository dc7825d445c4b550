"""``loop._selector``: what asyncio's inherited code, and tools that look into loops, expect to find there.

A selector of the ``selectors`` module that somebody gives to a loop names a kernel facility: the loop uses that one
natively, and the selector shows what the loop watches. Any other object does the waiting itself.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from . import _hotloop

if TYPE_CHECKING:
    from ._loop import EventLoop


class LoopSelector(selectors.BaseSelector):
    """A selector's view of a loop's native driver. The loop itself does the waiting."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop: EventLoop | None = loop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Have the loop run ``data``, a pair of handles for reading and writing, when the file object is ready."""
        loop = self._open_loop()
        fd = selectors._fileobj_to_fd(fileobj)  # type: ignore[attr-defined]
        if any(loop._watchers(fd)):
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        reader, writer = data
        if events & selectors.EVENT_READ:
            loop._watch_read(fd, reader)
        if events & selectors.EVENT_WRITE:
            loop._watch_write(fd, writer)
        return selectors.SelectorKey(fileobj, fd, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a file object."""
        key = self.get_key(fileobj)
        loop = self._open_loop()
        loop._unwatch_read(key.fd)
        loop._unwatch_write(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Which of the watched descriptors are ready. The loop itself does not ask here: it waits natively.

        A tool that has put turns of its own in the place of the loop's does. It gets no descriptors, but what is ready
        is handled by one more callback.
        """
        if self._loop is not None and type(self._loop)._run_once is not _hotloop.Loop._run_once:
            self._loop._wait_for_io(timeout)
            return []
        with selectors.DefaultSelector() as selector:
            for key in self.get_map().values():
                # One that was closed meanwhile is never ready.
                with contextlib.suppress(OSError):
                    selector.register(key.fd, key.events, key.data)
            return selector.select(timeout)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """The watched descriptors."""
        return _Map(self._open_loop())

    def close(self) -> None:
        """Let go of the loop."""
        self._loop = None

    def _open_loop(self) -> EventLoop:
        if self._loop is None:
            raise RuntimeError("Selector is closed")
        return self._loop


class _Map(Mapping[Any, selectors.SelectorKey]):
    """Selector keys by file object, made when asked for."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        fd = selectors._fileobj_to_fd(fileobj)  # type: ignore[attr-defined]
        reader, writer = self._loop._watchers(fd)
        if reader is None and writer is None:
            raise KeyError(fileobj)
        events = (reader is not None) * selectors.EVENT_READ | (writer is not None) * selectors.EVENT_WRITE
        shown = self._loop._read_objects.get(fd, self._loop._write_objects.get(fd, fd))
        return selectors.SelectorKey(shown, fd, events, (reader, writer))

    def __iter__(self) -> Iterator[int]:
        return iter(self._loop._watched())

    def __len__(self) -> int:
        return len(self._loop._watched())


# What a selector is asked by a loop.
_METHODS = ("register", "unregister", "modify", "select", "get_key", "get_map")

# The selectors of the standard library that this platform has, the names of the drivers that do the same, and the
# methods that they must still have for that.
_NATIVE = {
    kind: (driver, {name: getattr(kind, name) for name in _METHODS})
    for kind, driver in (
        (getattr(selectors, name, None), driver)
        for name, driver in (("EpollSelector", "epoll"), ("PollSelector", "poll"), ("SelectSelector", "select"))
    )
    if kind is not None
}


def driver_for(selector: selectors.BaseSelector) -> str:
    """The name of the driver that does what a selector does; "selector" where only it can."""
    driver, methods = _NATIVE.get(type(selector), ("selector", {}))
    is_altered = any(getattr(type(selector), name) is not method for name, method in methods.items())
    # One that is in use already, or in which somebody has put something of his own, is more than a name.
    if is_altered or not vars(selector).keys().isdisjoint(_METHODS) or selector.get_map():
        return "selector"
    return driver


def show(selector: selectors.BaseSelector, view: LoopSelector) -> None:
    """Have a selector, which nobody waits with, show what a loop watches."""
    for name in _METHODS:
        setattr(selector, name, getattr(view, name))


def show_no_more(selector: selectors.BaseSelector) -> None:
    """Undo ``show``."""
    for name in _METHODS:
        vars(selector).pop(name, None)
