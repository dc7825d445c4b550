"""A descriptor that a file owns or was lent, and what is done to it."""

from __future__ import annotations

import asyncio
import io
import os
import warnings
from collections.abc import Callable
from typing import Any

from ._backend import Backend, of
from ._turn import Turn


class Descriptor(Turn):
    """The descriptor of a file. Files that share one share its turn."""

    __slots__ = (
        "_backend",
        "_loop",
        "arrived",
        "can_read",
        "can_write",
        "closes_now",
        "fd",
        "mode",
        "name",
        "owned",
        "size",
        "words",
    )

    def __init__(
        self, fd: int, name: Any, mode: str, owned: io.FileIO | bool, size: int, closes_now: bool = False
    ) -> None:
        super().__init__()
        #: Its number, -1 once it is closed or about to be.
        self.fd = fd
        #: The path or the number that was given to `open`.
        self.name = name
        #: The mode, without what is about text.
        self.mode = mode
        self.can_read = "r" in mode or "+" in mode
        self.can_write = mode != "r"
        #: Whether it is closed with the file, or what closes it then.
        self.owned = owned
        #: Whether closing it waits for nobody.
        self.closes_now = closes_now and not self.can_write
        #: The size of the file when it was opened, in bytes; 0 where that says nothing.
        self.size = size
        #: What has the properties of the descriptor and the words of errors, once somebody asks.
        self.words: io.FileIO | None = None
        #: What is done with the result of the call that is under way.
        self.arrived: Callable[[Any], object] = nothing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._backend: Backend | None = None

    @property
    def file(self) -> io.FileIO:
        """A `FileIO` on the descriptor, a closed one where that is closed. Nothing is read or written by it."""
        if self.fd < 0:
            return CLOSED
        if self.words is None:
            self.words = io.FileIO(self.fd, self.mode, closefd=False)
            self.words.name = self.name
        return self.words

    @property
    def backend(self) -> Backend:
        """The backend of the running loop."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop or self._backend is None:
            self._loop = loop
            self._backend = of(loop)
        return self._backend

    def served_by(self, loop: asyncio.AbstractEventLoop, backend: Backend) -> None:
        """The backend of the loop in which it was opened."""
        self._loop, self._backend = loop, backend

    async def fly(self, future: asyncio.Future[Any], arrived: Callable[[Any], object]) -> None:
        """Wait for a call on the descriptor that has `landed` to tell, and pass on what it gives to `arrived`.

        That is called as well where the task that waits is cancelled: when the call is over. Until then nothing else
        is done to the file.
        """
        self.flying = True
        self.arrived = arrived
        try:
            result = await future
        except BaseException:
            if not future.done():
                future.cancel()
            if future.cancelled():
                raise
            self.flying = False
            if future.exception() is None:  # it landed, and the task was cancelled before it saw that
                arrived(future.result())
            raise
        self.flying = False
        arrived(result)

    def read_now(self) -> bytes | None:
        """Read up to the end if that waits for nothing, else None: nothing was read then."""
        return self.backend.read_now(self.fd, self.size)

    async def read_all(self, arrived: Callable[[bytes | None], object]) -> None:
        """Read up to the end, as `fly` does."""
        await self.fly(self.backend.read_all(self.landed, self.fd, self.size), arrived)

    def landed(self, result: Any, error: BaseException | None) -> None:
        """The call that is under way is over, and nobody waits for it."""
        self.flying = False
        if error is None:
            self.arrived(result)
        self.release()

    async def close(self) -> None:
        """Close it. From now on it is closed for everybody."""
        fd, self.fd = self.fd, -1
        if fd < 0 or self.owned is False:
            return
        if self.closes_now:
            os.close(fd)
            return
        if self.owned is True:
            future = self.backend.close(self.landed, fd)
        else:
            future = self.backend.submit(self.landed, self.owned.close)
        await self.fly(future, nothing)

    def close_now(self) -> None:
        """Close it, in whichever thread this is."""
        fd, self.fd = self.fd, -1
        if fd < 0 or self.owned is False:
            return
        if self.owned is True:
            os.close(fd)
        else:
            self.owned.close()

    def __del__(self) -> None:
        if self.fd >= 0 and self.owned is True:
            warnings.warn(f"unclosed file {self.file!r}", ResourceWarning, source=self, stacklevel=2)
            self.close_now()


def nothing(_: object) -> None:
    """For what has nothing to keep."""


#: Refuses everything, as a file that is closed does.
CLOSED = io.FileIO(os.devnull)
CLOSED.close()
