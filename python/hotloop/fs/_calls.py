"""Blocking calls on the default executor of a loop, in batches.

`loop.run_in_executor` costs two futures, a wake-up of a thread and a wake-up of the loop for each call. Here calls
queue up, and a *worker*, one job of the executor, makes them one after the other and tells the loop of many at a time.
So that a call that blocks (a FIFO that nobody writes to, a disk that sleeps) holds nobody else up, the loop looks after
the queue while calls wait in it, and asks for one more worker whenever they are slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

#: What hears of a call whose future was cancelled, when it is over: of its result or its error.
Landed = Callable[[Any, BaseException | None], object]
#: The future of a call, who hears of it otherwise, what to call, and with what.
Call = tuple[asyncio.Future[Any], Landed | None, Callable[..., Any], tuple[Any, ...]]
#: A call that was made: its future, who hears of it otherwise, its result and its error.
Made = tuple[asyncio.Future[Any], Landed | None, Any, BaseException | None]

#: How often the loop looks after calls that wait behind others, in seconds.
LOOK_AFTER = 0.001
#: Workers are slow, and one more is asked for, where they have made fewer calls than this between two looks: a call
#: that needs no device takes some microseconds.
SLOW = 4
#: Calls that are made before the loop is told, while others wait: it would otherwise be woken for each.
TELL_AT_LEAST = 64
#: Workers of a loop at most; the executor has a limit of its own.
MOST_WORKERS = 32


class Calls:
    """The calls of one loop. All but `_work` is called in the loop's thread."""

    def __init__(self) -> None:
        #: Guards `_workers`.
        self._lock = threading.Lock()
        #: Jobs of the executor that make calls or are about to.
        self._workers = 0
        #: Calls that no worker has taken yet.
        self._waiting: deque[Call] = deque()
        #: Calls that were made, of which the loop does not know yet.
        self._made: deque[Made] = deque()
        #: Whether the loop was told that calls were made, and has not looked yet.
        self._told = False
        #: Calls that were asked for and have not landed.
        self._outstanding = 0
        #: Calls that have landed since the last look.
        self._landed = 0
        #: The timer of the next look, while calls wait behind others.
        self._look: asyncio.TimerHandle | None = None

    def submit(self, landed: Landed | None, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Call `function(*arguments)` in a thread; the future has what it returns or raises.

        The call is made whatever becomes of the future. Where that was cancelled, `landed(result, error)` is called
        when the call is over: in the loop, or in the thread where the loop is closed by then.

        Raises RuntimeError where the executor was shut down.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        # A worker that ends counts itself out before it looks here for the last time, so that one of the two sees the
        # other.
        self._waiting.append((future, landed, function, arguments))
        if not self._workers:
            try:
                self._summon(loop)
            except BaseException:
                self._waiting.pop()
                raise
        if self._outstanding and self._look is None:
            self._look = loop.call_later(LOOK_AFTER, self._look_after, loop)
        self._outstanding += 1
        return future

    def _summon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask for one more worker."""
        with self._lock:
            self._workers += 1
        try:
            loop.run_in_executor(None, self._work, loop)
        except BaseException:
            with self._lock:
                self._workers -= 1
            raise

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make calls until none waits: a worker."""
        waiting, made = self._waiting, self._made
        while True:
            try:
                future, landed, function, arguments = waiting.popleft()
            except IndexError:
                with self._lock:
                    self._workers -= 1
                if not waiting:
                    return
                with self._lock:
                    self._workers += 1
                continue
            try:
                made.append((future, landed, function(*arguments), None))
            except StopIteration as error:  # a future takes no such thing
                refusal = RuntimeError("StopIteration was raised in a call")
                refusal.__cause__ = error
                made.append((future, landed, None, refusal))
            except BaseException as error:
                made.append((future, landed, None, error))
            del future, landed, function, arguments
            if not self._told and (not waiting or len(made) >= TELL_AT_LEAST):
                self._told = True
                try:
                    loop.call_soon_threadsafe(self._land)
                except RuntimeError:  # the loop is closed: what was opened must be closed all the same
                    self._told = False
                    self._abandon()

    def _land(self) -> None:
        """Resolve the futures of the calls that were made."""
        self._told = False  # before the queue is looked at: what comes in from now on is told again
        made = self._made
        while made:
            future, landed, result, error = made.popleft()
            self._outstanding -= 1
            self._landed += 1
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
            elif landed is not None:
                landed(result, error)
        if not self._outstanding and self._look is not None:
            self._look.cancel()
            self._look = None

    def _abandon(self) -> None:
        """Hand out the results of calls whose loop is closed."""
        while self._made:
            _, landed, result, error = self._made.popleft()
            if landed is not None:
                landed(result, error)

    def _look_after(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask for one more worker where calls wait and those that there are make few."""
        self._look = None
        self._land()
        landed, self._landed = self._landed, 0
        if not self._outstanding:
            return
        if self._waiting and landed < SLOW and self._workers < MOST_WORKERS:
            with contextlib.suppress(RuntimeError):  # the executor takes no more jobs: those that it has go on
                self._summon(loop)
        self._look = loop.call_later(LOOK_AFTER, self._look_after, loop)

    def __del__(self) -> None:
        self._abandon()
