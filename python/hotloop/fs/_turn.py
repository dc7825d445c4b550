"""One operation of a file at a time, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Turn:
    """Whose turn it is at a file.

    A lock that outlives a cancelled waiter: what the kernel or a thread does for an operation goes on when the task
    that waited for it was cancelled, and the next operation begins behind it.
    """

    __slots__ = ("end", "flying", "taken", "waiters")

    def __init__(self) -> None:
        #: Whether an operation of the file is under way.
        self.taken = False
        #: Whether a call on the descriptor is under way.
        self.flying = False
        #: Operations that wait, first come first; None before the first.
        self.waiters: deque[asyncio.Future[None]] | None = None
        #: What to do when the turn is released next, for an operation that could not wait for it.
        self.end: Callable[[], object] | None = None

    async def acquire(self) -> None:
        """Wait for the turn."""
        if not self.taken:
            self.taken = True
            return
        waiter = asyncio.get_running_loop().create_future()
        if self.waiters is None:
            self.waiters = deque()
        self.waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.release()  # it was given just when the task was cancelled
            else:
                waiter.cancel()
            raise

    def release(self) -> None:
        """Give the turn to the next, unless a call on the descriptor goes on: its landing does that."""
        if self.flying:
            return
        if self.end is not None:
            end, self.end = self.end, None
            end()
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.taken = False


def alone(method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A method that has the file to itself, by its `_turn`."""

    @functools.wraps(method)
    async def in_turn(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        turn: Turn = self._turn
        if turn.taken:
            await turn.acquire()
        else:
            turn.taken = True
        try:
            return await method(self, *args, **kwargs)
        finally:
            turn.release()

    return in_turn
