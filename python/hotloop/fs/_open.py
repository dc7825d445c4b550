"""`open`."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import errno
import functools
import io
import locale
import os
import sys
from collections.abc import Callable, Generator
from stat import S_ISCHR, S_ISDIR
from types import TracebackType
from typing import Any, Generic, TypeVar

from . import _backend
from ._binary import BufferedFile
from ._descriptor import Descriptor
from ._file import File
from ._text import TextFile, checked
from ._threads import Opened
from ._unbuffered import RawFile

#: The function whose arguments and errors these are.
builtin_open: Callable[..., Any] = builtins.open

Opener = Callable[[Any, int], int]
AnyFile = TypeVar("AnyFile", bound=File[Any])


class Opening(Generic[AnyFile]):
    """What `open` returns: `await` it for a file, or use it with `async with`, which closes the file at its end."""

    __slots__ = ("_arguments", "_file")

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self._arguments = arguments
        self._file: AnyFile | None = None

    def __await__(self) -> Generator[Any, None, AnyFile]:
        if self._file is None:
            self._file = yield from _open(*self._arguments).__await__()
        return self._file

    async def __aenter__(self) -> AnyFile:
        if self._file is None:
            self._file = await _open(*self._arguments)
        return self._file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            await file.close()


def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[Any]:
    """Open a file: what the builtin `open` of these arguments does, without blocking the loop.

    Awaited it gives a file, and `async with` closes it too:

        async with hotloop.fs.open("log.txt") as file:
            async for line in file:
                ...

    The file has the methods that the builtin one has, as coroutines. Raises what the builtin `open` raises.
    """
    return Opening((file, mode, buffering, encoding, errors, newline, closefd, opener))


async def _open(
    file: Any,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    closefd: bool,
    opener: Opener | None,
) -> Any:
    if not isinstance(file, str | bytes | int):
        file = path_of(file)
    try:
        raw_mode, flags = checked_mode(mode, buffering == 1, encoding is None, errors is None, newline is None)
        if not isinstance(buffering, int):
            raise TypeError("buffering is no number")
        for name in (encoding, errors, newline):
            if name is not None and not isinstance(name, str):
                raise TypeError("a name is no string")
    except (TypeError, ValueError):
        check(mode, buffering, encoding, errors, newline)  # with the arguments themselves, for the words
        raise
    if opener is None and closefd and isinstance(file, str | bytes):
        loop = asyncio.get_running_loop()
        backend = _backend.of(loop)
        opened = backend.open_now(file, flags) or await open_path(backend, file, flags)
        descriptor, kind = served(opened, file, raw_mode, loop, backend)
    else:
        descriptor, kind = await open_otherwise(file, raw_mode, closefd, opener)
    try:
        binary = "b" in mode
        if buffering < -1 or (buffering == 0 and not binary):
            refused(descriptor.fd, mode, buffering, encoding, errors, newline, False)
        if buffering == 0:
            return RawFile(descriptor)
        lines = buffering == 1 or (buffering < 0 and S_ISCHR(kind) and os.isatty(descriptor.fd))
        size = -1 if buffering == 1 else buffering
        if binary:
            return BufferedFile(descriptor, size)
        encoding, errors = checked(chosen_encoding(encoding), errors, newline)
        return TextFile(descriptor, size, encoding, errors, newline, lines, mode)
    except BaseException:
        descriptor.close_now()
        raise


async def open_path(backend: _backend.Backend, path: str | bytes, flags: int) -> Opened:
    """Open a path that may have to be waited for; what is opened for a task that was cancelled is closed."""
    future = backend.open(unwanted, path, flags)
    try:
        return await future
    except BaseException:
        if not future.done():
            future.cancel()
        elif not future.cancelled() and future.exception() is None:
            unwanted(future.result(), None)
        raise


def served(
    opened: Opened, path: str | bytes, mode: str, loop: asyncio.AbstractEventLoop, backend: _backend.Backend
) -> tuple[Descriptor, int]:
    """The descriptor of what was opened, and its kind."""
    fd, kind, size, closes_now = opened
    try:
        if S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if "a" in mode:
            with contextlib.suppress(OSError):  # what has no positions
                os.lseek(fd, 0, os.SEEK_END)
    except BaseException:
        os.close(fd)
        raise
    descriptor = Descriptor(fd, path, mode, True, size, closes_now)
    descriptor.served_by(loop, backend)
    return descriptor, kind


async def open_otherwise(file: Any, mode: str, closefd: bool, opener: Opener | None) -> tuple[Descriptor, int]:
    """What `io.FileIO` opens: numbers, and what an opener of the caller's does."""

    def landed(raw: io.FileIO | None, error: BaseException | None) -> None:
        if raw is not None:
            raw.close()

    future = _backend.running().submit(landed, io.FileIO, file, mode, closefd, opener)
    try:
        raw: io.FileIO = await future
    except BaseException:
        if not future.done():
            future.cancel()
        elif not future.cancelled() and future.exception() is None:
            landed(future.result(), None)
        raise
    return Descriptor(raw.fileno(), file, mode, raw, 0), os.fstat(raw.fileno()).st_mode


def unwanted(opened: Opened | None, error: BaseException | None) -> None:
    """Close what was opened for nobody."""
    if opened is not None:
        os.close(opened[0])


class Checked(Exception):
    """The builtin `open` had nothing against its arguments."""


def check(mode: Any, buffering: Any, encoding: Any, errors: Any, newline: Any) -> int:
    """The flags that the builtin `open` opens with; raises what that raises about arguments before it does."""
    asked: list[int] = []

    def opener(path: str, flags: int) -> int:
        asked.append(flags)
        raise Checked

    with contextlib.suppress(Checked):
        refused(".", mode, buffering, encoding, errors, newline, True, opener)
    return asked[0]


def checked_mode(mode: str, line: bool, no_encoding: bool, no_errors: bool, no_newline: bool) -> tuple[str, int]:
    """The mode of the descriptor and its flags. Raises what `open` raises about a mode and what goes with it."""
    if line:  # which may warn, each time
        return mode_and_flags(mode, line, no_encoding, no_errors, no_newline)
    return known_mode(mode, line, no_encoding, no_errors, no_newline)


def mode_and_flags(mode: str, line: bool, no_encoding: bool, no_errors: bool, no_newline: bool) -> tuple[str, int]:
    given = [None if absent else "" for absent in (no_encoding, no_errors, no_newline)]
    flags = check(mode, 1 if line else -1, *given)
    return "".join(letter for letter in mode if letter not in "bt"), flags


known_mode = functools.lru_cache(maxsize=256)(mode_and_flags)


def chosen_encoding(encoding: str | None) -> str:
    """The encoding that `open` takes where none is named."""
    if encoding is None and sys.flags.warn_default_encoding:
        encoding = io.text_encoding(encoding, 4)
    if encoding is None or encoding == "locale":
        return "utf-8" if encoding is None and sys.flags.utf8_mode else locale.getencoding()
    return encoding


def path_of(file: Any) -> Any:
    """The path of an object that has one; raises in the words of `open` where it has none."""
    try:
        return file.__fspath__()
    except AttributeError:
        refused(file)
        raise


def refused(*arguments: Any) -> None:
    """Have the builtin `open` refuse its arguments, in its words."""
    builtin_open(*arguments).close()
