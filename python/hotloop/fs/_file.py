"""What files have in common."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, Self, TypeVar

from ._descriptor import Descriptor
from ._turn import alone

Line = TypeVar("Line", str, bytes)


class File(Generic[Line]):
    """A file of bytes or of text."""

    __slots__ = ("__weakref__", "_turn")

    def __init_subclass__(cls, in_turn: Iterable[str] = ()) -> None:
        """Has the methods of these names wait for the file's turn."""
        super().__init_subclass__()
        for name in in_turn:
            setattr(cls, name, alone(getattr(cls, name)))

    def __init__(self, descriptor: Descriptor) -> None:
        self._turn = descriptor

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._turn.fd < 0

    @property
    def name(self) -> Any:
        """The path or the descriptor that was opened."""
        return self._turn.name

    @property
    def mode(self) -> str:
        """The mode."""
        return self._turn.file.mode

    def fileno(self) -> int:
        """The number of the descriptor. Raises ValueError where the file is closed."""
        return self._turn.file.fileno()

    def readable(self) -> bool:
        """Whether it is open for reading."""
        return self._turn.file.readable()

    async def writable(self) -> bool:
        """Whether it is open for writing."""
        return self._turn.file.writable()

    async def seekable(self) -> bool:
        """Whether it has positions."""
        return self._turn.file.seekable()

    async def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._turn.file.isatty()

    async def readline(self, size: int = -1, /) -> Line:
        """A line, or up to `size` of it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Write what is in the buffer, and close the descriptor even where that fails. A second call does nothing."""
        turn = self._turn
        if turn.fd < 0:
            return
        if turn.taken:
            try:
                await turn.acquire()
            except BaseException:
                turn.end = self._drop
                raise
        else:
            turn.taken = True
        try:
            await self._close()
        except BaseException:
            if turn.flying and turn.fd >= 0:
                turn.end = self._drop
            raise
        finally:
            turn.release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Line:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def __aenter__(self) -> Self:
        self._turn.file.readable()  # raises where it is closed, in the words of io
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _close(self) -> Coroutine[Any, Any, None]:
        """Close the file, whose turn it is."""
        return self._turn.close()

    def _drop(self) -> None:
        """Close the file in the background."""
        in_background(self._turn, self._turn.close_now)


def in_background(descriptor: Descriptor, call: Callable[[], object]) -> None:
    """Call what nobody waits for in a thread, or here where no loop runs or its executor is gone."""
    try:
        descriptor.backend.submit(None, call)
    except RuntimeError:
        call()


async def lines_of(file: File[Line], hint: int | None) -> list[Line]:
    """The lines of a file from where it is, up to the one with which they have more than `hint` bytes."""
    lines: list[Line] = []
    size = 0
    while line := await file.readline():
        lines.append(line)
        size += len(line)
        if hint is not None and 0 < hint < size:
            break
    return lines


def writable(buffer: Any) -> memoryview:
    """The bytes of a buffer that is read into."""
    try:
        view = memoryview(buffer)
        if not view.readonly:
            return view.cast("B")
    except TypeError:
        pass
    io.BytesIO().readinto(buffer)  # raises, in the words of io
    raise TypeError("a writable buffer is required")
