"""``loop._selector``: what asyncio's inherited code, and tools that look into loops, expect to find there."""

from __future__ import annotations

import selectors
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
        """Nothing: the loop waits by itself, natively."""
        raise NotImplementedError("the loop waits natively; run the loop instead")

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
        return selectors.SelectorKey(fd, fd, events, (reader, writer))

    def __iter__(self) -> Iterator[int]:
        return iter(self._loop._watched())

    def __len__(self) -> int:
        return len(self._loop._watched())
