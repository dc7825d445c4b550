"""Files of bytes without a buffer."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any

from ._descriptor import Descriptor, nothing
from ._file import File, lines_of, writable
from ._turn import in_turn


class RawFile(File[bytes]):
    """A file of bytes without a buffer: `open` with `buffering=0`. What `io.FileIO` is, each call of it awaited."""

    __slots__ = ("_kept",)

    def __init__(self, descriptor: Descriptor) -> None:
        super().__init__(descriptor)
        #: What a cancelled call has read; None where the last call would have blocked.
        self._kept: bytes | None = b""

    @in_turn
    async def read(self, size: int | None = -1, /) -> bytes | None:
        """Up to `size` bytes by one call, or all there is; None where that would block. b"" at the end."""
        if self.closed or not self._turn.can_read:
            return self._turn.file.read(size)
        if size is None or (isinstance(size, int) and size < 0):
            return await self._read_all()
        return await self._read(size)

    @in_turn
    async def readall(self) -> bytes | None:
        """All there is; None where that would block."""
        return await self._read_all()

    @in_turn
    async def readinto(self, buffer: Any, /) -> int | None:
        """Read into a writable buffer by one call, and return how many bytes."""
        if self.closed or not self._turn.can_read:
            return self._turn.file.readinto(buffer)
        with writable(buffer) as view:
            data = await self._read(len(view))
            if data is None:
                return None
            view[: len(data)] = data
            return len(data)

    @in_turn
    async def readline(self, size: int | None = -1, /) -> bytes:
        """A line, or up to `size` bytes of it."""
        descriptor = self._turn
        if self.closed or not descriptor.can_read or not (size is None or isinstance(size, int)):
            return descriptor.file.readline(size)
        limit = -1 if size is None or size < 0 else size
        line = self._kept or b""
        end = line.find(b"\n") + 1
        if not end and (limit < 0 or len(line) < limit):
            rest = limit if limit < 0 else limit - len(line)
            future = descriptor.backend.submit(descriptor.landed, descriptor.file.readline, rest)
            await descriptor.fly(future, self._keep)
            line = self._kept or b""
        cut = min(end or len(line), len(line) if limit < 0 else limit)
        line, self._kept = line[:cut], line[cut:]
        return line

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """The lines from here on, up to the one with which they have more than `hint` bytes."""
        if self.closed or not self._turn.can_read:
            return self._turn.file.readlines(-1 if hint is None else hint)
        return await lines_of(self, hint)

    @in_turn
    async def write(self, data: Any, /) -> int | None:
        """Write by one call, and return how many bytes that took; None where it would block."""
        descriptor = self._turn
        if self.closed or not descriptor.can_write:
            return descriptor.file.write(data)
        taken = io.BytesIO()
        taken.write(data)
        self._drop_kept()
        written: list[int] = []
        try:
            future = descriptor.backend.write(descriptor.landed, descriptor.fd, taken.getvalue())
            await descriptor.fly(future, written.append)
        except BlockingIOError:
            return None
        return written[0]

    async def writelines(self, lines: Iterable[Any], /) -> None:
        """Write each of `lines`."""
        if self.closed:
            self._turn.file.writelines(())  # raises
        for line in lines:
            await self.write(line)

    @in_turn
    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position, in bytes, and return it."""
        self._drop_kept()
        return self._turn.file.seek(offset, whence)

    @in_turn
    async def tell(self) -> int:
        """The position, in bytes."""
        return self._turn.file.tell() - len(self._kept or b"")

    @in_turn
    async def truncate(self, size: int | None = None, /) -> int:
        """Cut the file to `size` bytes, or at the position; return the size."""
        descriptor = self._turn
        if self.closed or not descriptor.can_write:
            return descriptor.file.truncate(size)
        length = descriptor.file.tell() - len(self._kept or b"") if size is None else size
        future = descriptor.backend.submit(descriptor.landed, os.ftruncate, descriptor.fd, length)
        await descriptor.fly(future, nothing)
        return length

    async def flush(self) -> None:
        """Nothing: there is no buffer."""
        self._turn.file.flush()

    async def _read_all(self) -> bytes | None:
        descriptor = self._turn
        if self.closed or not descriptor.can_read:
            return descriptor.file.readall()
        await descriptor.fly(descriptor.backend.read_all(descriptor.landed, descriptor.fd, descriptor.size), self._keep)
        data, self._kept = self._kept, b""
        return data

    async def _read(self, size: Any) -> bytes | None:
        descriptor = self._turn
        if self.closed or not descriptor.can_read or not isinstance(size, int):
            return descriptor.file.read(size)
        if not self._kept:
            try:
                await descriptor.fly(descriptor.backend.read(descriptor.landed, descriptor.fd, size), self._keep)
            except BlockingIOError:
                return None
        kept = self._kept or b""
        data, self._kept = kept[:size], kept[size:]
        return data

    def _keep(self, data: bytes | None) -> None:
        self._kept = data if data is None and not self._kept else (self._kept or b"") + (data or b"")

    def _drop_kept(self) -> None:
        """Go back to where the next call reads."""
        kept, self._kept = self._kept, b""
        if kept:
            self._turn.file.seek(-len(kept), os.SEEK_CUR)
