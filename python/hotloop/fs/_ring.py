"""The backend on io_uring: the kernel does operations on files, without a thread where it has what they need."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from .._hotloop import FileRing
from ._calls import Landed
from ._threads import LET_GO, Opened, ThreadBackend


class RingBackend(ThreadBackend):
    """Operations on descriptors by a ring, everything else by calls on the default executor."""

    def __init__(self) -> None:
        """Raises OSError where io_uring is refused."""
        super().__init__()
        self._ring = FileRing()

    def fileno(self) -> int:
        """The descriptor that is readable while there is something for `reap`."""
        return self._ring.fileno()

    def reap(self) -> None:
        """Tell of what is over."""
        self._ring.reap()

    def _now(self) -> bool:
        """Whether an operation may be over when it was begun."""
        if self._at_once <= 0:
            self._at_once = LET_GO
            return False
        self._at_once -= 1
        return True

    def _let_go(self) -> None:
        """Leave the count to `_now`: the turn in which one waits is that of the ring, which has none of its own."""

    def open(self, landed: Landed | None, path: str | bytes, flags: int) -> asyncio.Future[Opened]:
        encoded = os.fsencode(path)
        if b"\0" in encoded:
            return super().open(landed, path, flags)  # which has the words
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.open(future, landed, path, encoded, flags, 0o666, self._now())
        return future

    def close(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.close(future, landed, fd, self._now())
        return future

    def read(self, landed: Landed | None, fd: int, size: int) -> asyncio.Future[bytes]:
        if size < 0:
            return super().read(landed, fd, size)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.read(future, landed, fd, size, None, self._now())
        return future

    def read_all(self, landed: Landed | None, fd: int, expected: int) -> asyncio.Future[bytes | None]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.read_all(future, landed, fd, expected, self._now())
        return future

    def pread(self, landed: Landed | None, fd: int, size: int, offset: int) -> asyncio.Future[bytes]:
        if size < 0 or offset < 0:
            return super().pread(landed, fd, size, offset)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.read(future, landed, fd, size, offset, self._now())
        return future

    def write(self, landed: Landed | None, fd: int, data: bytes) -> asyncio.Future[int]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.write(future, landed, fd, data, None, self._now())
        return future

    def pwrite(self, landed: Landed | None, fd: int, data: bytes, offset: int) -> asyncio.Future[int]:
        if offset < 0:
            return super().pwrite(landed, fd, data, offset)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.write(future, landed, fd, data, offset, self._now())
        return future

    def fsync(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ring.fsync(future, landed, fd, self._now())
        return future
