"""The backend on threads."""

from __future__ import annotations

import asyncio
import io
import os

from .._hotloop import open_cached, read_cached
from ._calls import Calls, Landed

#: The number of a descriptor, the `st_mode` and the size of what it refers to, and whether closing it waits for nobody
#: as far as nothing was written.
Opened = tuple[int, int, int, bool]

#: One of so many operations waits for the next turn even if it could be over at once: a task that reads what is in
#: memory would otherwise never let go of the loop.
LET_GO = 32
#: More bytes than these are not read at once: copying them takes half a millisecond or so, for which the loop would
#: stand still.
MOST_AT_ONCE = 1 << 20


class ThreadBackend(Calls):
    """Every operation that may wait is a blocking call on the default executor."""

    def __init__(self) -> None:
        super().__init__()
        #: How many operations may be over at once before one waits for the next turn.
        self._at_once = LET_GO

    def _let_go(self) -> None:
        """Begin to count anew: the operation that is asked for waits for the next turn."""
        self._at_once = LET_GO

    def open_now(self, path: str | bytes, flags: int) -> Opened | None:
        if self._at_once <= 0:
            self._let_go()
            return None
        self._at_once -= 1
        return open_cached(path, flags)

    def read_now(self, fd: int, expected: int) -> bytes | None:
        if self._at_once <= 0:
            self._let_go()
            return None
        self._at_once -= 1
        return read_cached(fd, expected) if 0 < expected <= MOST_AT_ONCE else None

    def open(self, landed: Landed | None, path: str | bytes, flags: int) -> asyncio.Future[Opened]:
        return self.submit(landed, opened, path, flags)

    def close(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        return self.submit(landed, os.close, fd)

    def read(self, landed: Landed | None, fd: int, size: int) -> asyncio.Future[bytes]:
        return self.submit(landed, os.read, fd, size)

    def read_all(self, landed: Landed | None, fd: int, expected: int) -> asyncio.Future[bytes | None]:
        return self.submit(landed, all_of, fd, expected)

    def pread(self, landed: Landed | None, fd: int, size: int, offset: int) -> asyncio.Future[bytes]:
        return self.submit(landed, os.pread, fd, size, offset)

    def write(self, landed: Landed | None, fd: int, data: bytes) -> asyncio.Future[int]:
        return self.submit(landed, os.write, fd, data)

    def pwrite(self, landed: Landed | None, fd: int, data: bytes, offset: int) -> asyncio.Future[int]:
        return self.submit(landed, os.pwrite, fd, data, offset)

    def fsync(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        return self.submit(landed, os.fsync, fd)


def opened(path: str | bytes, flags: int) -> Opened:
    """`os.open`, in the words of the builtin `open` where that has some of its own, and what was opened."""
    try:
        fd = os.open(path, flags, 0o666)
    except (TypeError, ValueError):
        io.FileIO(path).close()  # raises
        raise
    try:
        kind = os.fstat(fd)
        return fd, kind.st_mode, kind.st_size, False
    except BaseException:
        os.close(fd)
        raise


def all_of(fd: int, expected: int) -> bytes | None:
    """What `os.read` gives up to the end; None where it would block before it gave something."""
    chunks = []
    # One more than there is: that fewer come says that this was the end.
    size = min(expected, MOST_READ) + 1 if expected else FIRST_READ
    try:
        while chunk := os.read(fd, size):
            chunks.append(chunk)
            if len(chunk) == expected < size and len(chunks) == 1:
                break
            if len(chunk) == size:
                size = min(max(size * 2, os.fstat(fd).st_size), MOST_READ)
    except BlockingIOError:
        return b"".join(chunks) or None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


#: What is read first where all of a file is wanted, in bytes, and at a time at most.
FIRST_READ = 1 << 16
MOST_READ = 1 << 30
