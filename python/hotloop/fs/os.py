"""Functions of the standard library's `os` that touch files, as coroutines of the same names and arguments."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from . import _backend
from ._descriptors import close, fsync, pread, pwrite, read, stat, write

__all__ = [
    "access",
    "close",
    "fdatasync",
    "fsync",
    "ftruncate",
    "getcwd",
    "link",
    "listdir",
    "lstat",
    "makedirs",
    "mkdir",
    "open",
    "pread",
    "pwrite",
    "read",
    "readlink",
    "remove",
    "removedirs",
    "rename",
    "renames",
    "replace",
    "rmdir",
    "scandir",
    "stat",
    "statvfs",
    "symlink",
    "truncate",
    "unlink",
    "write",
]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def threaded(function: Callable[Parameters, Result]) -> Callable[Parameters, Coroutine[Any, Any, Result]]:
    """A function that blocks, as a coroutine function."""

    @functools.wraps(function)
    async def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        wanted = functools.partial(function, *args, **kwargs) if kwargs else function
        result: Result = await _backend.running().submit(None, wanted, *(() if kwargs else args))
        return result

    return call


async def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """`os.open`: a new descriptor. Where the task that waits is cancelled it is closed."""
    backend = _backend.running()

    def landed(fd: int, error: BaseException | None) -> None:
        if error is None:
            os.close(fd)

    future = backend.submit(landed, functools.partial(os.open, path, flags, mode, dir_fd=dir_fd))
    try:
        fd: int = await future
        return fd
    except BaseException:
        if not future.done():
            future.cancel()
        elif not future.cancelled() and future.exception() is None:
            os.close(future.result())
        raise


access = threaded(os.access)
fdatasync = threaded(os.fdatasync)
ftruncate = threaded(os.ftruncate)
getcwd = threaded(os.getcwd)
link = threaded(os.link)
listdir = threaded(os.listdir)
lstat = threaded(os.lstat)
makedirs = threaded(os.makedirs)
mkdir = threaded(os.mkdir)
readlink = threaded(os.readlink)
remove = threaded(os.remove)
removedirs = threaded(os.removedirs)
rename = threaded(os.rename)
renames = threaded(os.renames)
replace = threaded(os.replace)
rmdir = threaded(os.rmdir)
scandir = threaded(os.scandir)
statvfs = threaded(os.statvfs)
symlink = threaded(os.symlink)
truncate = threaded(os.truncate)
unlink = threaded(os.unlink)
