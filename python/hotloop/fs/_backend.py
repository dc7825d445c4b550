"""What files ask of a loop: operations on descriptors, each of which lands whatever becomes of who waits for it."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from ._calls import Landed
from ._ring import RingBackend
from ._threads import Opened, ThreadBackend


class Backend(Protocol):
    """Operations on descriptors for one loop.

    Each begins at once and gives a future. Cancelling that ends the waiting, not the operation: when it is over,
    `landed(result, error)` is called in its place.
    """

    def submit(self, landed: Landed | None, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Call a function that may block, in a thread."""

    def open_now(self, path: str | bytes, flags: int) -> Opened | None:
        """`open` where it is over at once, else None: nothing has begun then."""

    def open(self, landed: Landed | None, path: str | bytes, flags: int) -> asyncio.Future[Opened]:
        """`os.open` and `os.fstat`."""

    def close(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        """`os.close`."""

    def read(self, landed: Landed | None, fd: int, size: int) -> asyncio.Future[bytes]:
        """`os.read`."""

    def read_now(self, fd: int, expected: int) -> bytes | None:
        """`read_all` where it is over at once, else None: nothing was read then."""

    def read_all(self, landed: Landed | None, fd: int, expected: int) -> asyncio.Future[bytes | None]:
        """`os.read` up to the end, which is expected behind so many bytes, 0 for anywhere.

        None where it would block before it gave something.
        """

    def pread(self, landed: Landed | None, fd: int, size: int, offset: int) -> asyncio.Future[bytes]:
        """`os.pread`."""

    def write(self, landed: Landed | None, fd: int, data: bytes) -> asyncio.Future[int]:
        """`os.write`."""

    def pwrite(self, landed: Landed | None, fd: int, data: bytes, offset: int) -> asyncio.Future[int]:
        """`os.pwrite`."""

    def fsync(self, landed: Landed | None, fd: int) -> asyncio.Future[None]:
        """`os.fsync`."""


#: Makes a backend with a ring. Raises OSError where io_uring is refused; tests have it refused.
new_ring: Callable[[], RingBackend] = RingBackend

#: How to find the backend of each loop that has asked for one. One with a ring belongs to the loop, which lets go of it
#: when it is closed.
_backends: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Callable[[], Backend | None]]
_backends = weakref.WeakKeyDictionary()
# The calls that are under way in the parent are not made in the child.
os.register_at_fork(after_in_child=_backends.clear)


def running() -> Backend:
    """The backend of the running loop. Raises RuntimeError where none runs."""
    return of(asyncio.get_running_loop())


def of(loop: asyncio.AbstractEventLoop) -> Backend:
    """The backend of a loop."""
    find = _backends.get(loop)
    backend = None if find is None else find()
    if backend is None:
        try:
            ring = new_ring()
            loop.add_reader(ring.fileno(), ring.reap)
            backend, _backends[loop] = ring, weakref.ref(ring)
        except (OSError, NotImplementedError):  # io_uring is refused, or the loop watches no descriptors
            backend = threads = ThreadBackend()
            _backends[loop] = lambda: threads
    return backend
