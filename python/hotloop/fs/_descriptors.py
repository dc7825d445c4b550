"""Functions of `os` on descriptors, as coroutines."""

from __future__ import annotations

import functools
import os
from typing import Any

from . import _backend


async def read(fd: int, size: int, /) -> bytes:
    """`os.read`: up to `size` bytes, b"" at the end. What a cancelled call reads is lost."""
    return await _backend.running().read(None, fd, size)


async def pread(fd: int, size: int, offset: int, /) -> bytes:
    """`os.pread`: up to `size` bytes from `offset` on, b"" at the end; the position stays."""
    return await _backend.running().pread(None, fd, size, offset)


async def write(fd: int, data: Any, /) -> int:
    """`os.write`: how many bytes of `data` were written, which is copied first."""
    return await _backend.running().write(None, fd, copied(data))


async def pwrite(fd: int, data: Any, offset: int, /) -> int:
    """`os.pwrite`: how many bytes of `data` were written, from `offset` on; the position stays."""
    return await _backend.running().pwrite(None, fd, copied(data), offset)


async def fsync(fd: Any, /) -> None:
    """`os.fsync`: what was written is on the device. `fd` is a number, or has a method `fileno`."""
    number = fd if isinstance(fd, int) else fd.fileno()
    await _backend.running().fsync(None, number)


async def stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
    """`os.stat` of a path or of a descriptor."""
    call = functools.partial(os.stat, path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    found: os.stat_result = await _backend.running().submit(None, call)
    return found


async def close(fd: int, /) -> None:
    """`os.close`. The descriptor is closed whether or not the task that waits is cancelled."""
    await _backend.running().close(None, fd)


def copied(data: Any) -> bytes:
    """The bytes of a bytes-like object, which may change once this call was made."""
    return data if type(data) is bytes else bytes(memoryview(data))
