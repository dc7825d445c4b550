"""asyncio's private queues, for programs that look there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._hotloop import Loop


class ReadyView:
    """The callbacks that are ready, as asyncio's ``deque`` of them would look."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return self._loop._ready_count()

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


class ScheduledView(list[asyncio.TimerHandle]):
    """The timers that wait, as asyncio's heap of them would look: a copy, since ``heapq`` works on lists only.

    A timer that somebody takes out of it and puts into the ready queue is taken from the loop's own.
    """

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop._scheduled_handles())
        self._loop = loop

    def clear(self) -> None:
        """Drop all timers."""
        super().clear()
        self._loop._clear_scheduled(True)
