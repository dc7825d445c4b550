"""What files ask of a loop: operations on descriptors, each of which lands whatever becomes of who waits for it."""

from __future__ import annotations

import asyncio
import io
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ._calls import Calls, Landed

#: The number of a descriptor, and the `st_mode` of what it refers to.
Opened = tuple[int, int]


class Backend(Protocol):
    """Operations on descriptors for one loop.

    Each begins at once and gives a future. Cancelling that ends the waiting, not the operation: when it is over,
    `landed(result, error)` is called in its place.
    """

    def submit(self, landed: Landed | None, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Call a function that may block, in a thread."""

    def open(self, landed: Landed | None, path: str | bytes, flags: int) -> asyncio.Future[Opened]:
        """`os.open` and `os.fstat`."""

    def close(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        """`os.close`."""

    def read(self, landed: Landed | None, fd: int, size: int) -> asyncio.Future[bytes]:
        """`os.read`."""

    def read_all(self, landed: Landed | None, fd: int) -> asyncio.Future[bytes | None]:
        """`os.read` up to the end; None where it would block before it gave something."""

    def pread(self, landed: Landed | None, fd: int, size: int, offset: int) -> asyncio.Future[bytes]:
        """`os.pread`."""

    def write(self, landed: Landed | None, fd: int, data: bytes) -> asyncio.Future[int]:
        """`os.write`."""

    def pwrite(self, landed: Landed | None, fd: int, data: bytes, offset: int) -> asyncio.Future[int]:
        """`os.pwrite`."""

    def fsync(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        """`os.fsync`."""


class ThreadBackend(Calls):
    """Every operation is a blocking call on the default executor."""

    def open(self, landed: Landed | None, path: str | bytes, flags: int) -> asyncio.Future[Opened]:
        return self.submit(landed, opened, path, flags)

    def close(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        return self.submit(landed, os.close, fd)

    def read(self, landed: Landed | None, fd: int, size: int) -> asyncio.Future[bytes]:
        return self.submit(landed, os.read, fd, size)

    def read_all(self, landed: Landed | None, fd: int) -> asyncio.Future[bytes | None]:
        return self.submit(landed, all_of, fd)

    def pread(self, landed: Landed | None, fd: int, size: int, offset: int) -> asyncio.Future[bytes]:
        return self.submit(landed, os.pread, fd, size, offset)

    def write(self, landed: Landed | None, fd: int, data: bytes) -> asyncio.Future[int]:
        return self.submit(landed, os.write, fd, data)

    def pwrite(self, landed: Landed | None, fd: int, data: bytes, offset: int) -> asyncio.Future[int]:
        return self.submit(landed, os.pwrite, fd, data, offset)

    def fsync(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        return self.submit(landed, os.fsync, fd)


#: The backend of each loop that has asked for one.
_backends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Backend] = weakref.WeakKeyDictionary()
# The calls that are under way in the parent are not made in the child.
os.register_at_fork(after_in_child=_backends.clear)


def running() -> Backend:
    """The backend of the running loop. Raises RuntimeError where none runs."""
    return of(asyncio.get_running_loop())


def of(loop: asyncio.AbstractEventLoop) -> Backend:
    """The backend of a loop."""
    backend = _backends.get(loop)
    if backend is None:
        backend = _backends[loop] = ThreadBackend()
    return backend


def opened(path: str | bytes, flags: int) -> Opened:
    """`os.open`, in the words of the builtin `open` where that has some of its own, and what was opened."""
    try:
        fd = os.open(path, flags, 0o666)
    except (TypeError, ValueError):
        io.FileIO(path).close()  # raises
        raise
    try:
        return fd, os.fstat(fd).st_mode
    except BaseException:
        os.close(fd)
        raise


def all_of(fd: int) -> bytes | None:
    """What `os.read` gives up to the end; None where it would block before it gave something."""
    chunks = []
    size = FIRST_READ
    try:
        while chunk := os.read(fd, size):
            chunks.append(chunk)
            if len(chunk) == size:
                size = min(max(size * 2, os.fstat(fd).st_size), MOST_READ)
    except BlockingIOError:
        return b"".join(chunks) or None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


#: What is read first where all of a file is wanted, in bytes, and at a time at most.
FIRST_READ = 1 << 16
MOST_READ = 1 << 30
