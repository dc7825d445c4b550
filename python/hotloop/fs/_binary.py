"""Files of bytes, with the buffers of `io`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterable
from typing import Any

from ._descriptor import Descriptor, nothing
from ._file import File, in_background, lines_of, writable
from ._raw import ALL, Raw
from ._unbuffered import RawFile

Buffered = io.BufferedReader | io.BufferedWriter | io.BufferedRandom

#: The buffer of a file that is only read, in bytes, unless asked otherwise: each filling costs a turn of the loop.
READ_AHEAD = 1 << 16


#: The methods that have the file to themselves.
IN_TURN = ("read", "read1", "peek", "readinto", "readline", "write", "writelines", "flush", "seek", "tell", "truncate")


class BufferedFile(File[bytes], in_turn=IN_TURN):
    """A file of bytes: `io.BufferedReader`, `io.BufferedWriter` or `io.BufferedRandom`, each call of it awaited."""

    __slots__ = ("_buffering", "_made", "_raw")

    def __init__(self, descriptor: Descriptor, buffering: int) -> None:
        super().__init__(descriptor)
        #: The size of the buffer in bytes, -1 for the usual one.
        self._buffering = buffering
        #: What is below the buffers.
        self._raw = Raw(descriptor)
        #: The buffers, once something needs them: a file that is read as a whole needs none.
        self._made: Buffered | None = None
        if descriptor.can_read and descriptor.can_write:
            self._buffers()  # refuses what has no positions

    @property
    def raw(self) -> RawFile:
        """A file without a buffer on the same descriptor."""
        return RawFile(self._turn)

    async def read(self, size: int | None = -1, /) -> bytes | None:
        """Up to `size` bytes, fewer only at the end of the file, or all there is; b"" at its end.

        None or fewer bytes where the descriptor is one that does not block and has no more now.
        """
        return await self._read(size)

    async def read1(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, by one call on the descriptor at most."""
        return await self._read1(size)

    async def peek(self, size: int = 0, /) -> bytes:
        """What is in the buffer, filled before if it is empty; the position stays."""
        while True:
            data: bytes = self._buffers().peek(size)  # type: ignore[union-attr]
            if not await self._fed():
                return data

    async def readinto(self, buffer: Any, /) -> int | None:
        """Fill a writable buffer, and return how many bytes; fewer than fit only at the end of the file."""
        with writable(buffer) as view:
            done = 0
            while True:
                size = self._buffers().readinto(view[done:])
                done += size or 0
                if not await self._fed(view[:done]):
                    return done or size

    async def readline(self, size: int | None = -1, /) -> bytes:
        """A line, or up to `size` bytes of it; b"" at the end of the file."""
        line = self._buffers().readline(size)
        while await self._fed(line):
            line += self._buffers().readline(-1 if size is None or size < 0 else size - len(line))
        return line

    async def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """The lines from here on, up to the one with which they have more than `hint` bytes."""
        if self.closed or not self._turn.can_read:
            return self._buffers().readlines(-1 if hint is None else hint)
        return await lines_of(self, hint)

    async def write(self, data: Any, /) -> int:
        """Put bytes into the buffer and return how many; what does not fit is written."""
        return await self._write(data)

    async def writelines(self, lines: Iterable[Any], /) -> None:
        """Write each of `lines`."""
        if self.closed:
            self._turn.file.writelines(())  # raises
        for line in lines:
            await self._write(line)

    async def flush(self) -> None:
        """Write what is in the buffer."""
        await self._flush()

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position, in bytes, and return it."""
        return await self._seek(offset, whence)

    async def tell(self) -> int:
        """The position, in bytes."""
        return self._buffers().tell()

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut the file to `size` bytes, or at the position; return the size."""
        return await self._truncate(size)

    # What a text file calls too, in a turn that is its own.

    async def _read(self, size: int | None = -1) -> bytes | None:
        if self._made is None and (size is None or size == -1) and not self.closed and self._turn.can_read:
            # All at once, without buffers: the usual case costs one call.
            if not self._raw.ended:
                await self._fetch(ALL)
            return self._raw.take_all() if self._raw.ended else None
        data = self._buffers().read(size)
        while await self._fed(data):
            more = self._buffers().read(size if size is None or size < 0 else size - len(data or b""))
            if more is not None:
                data = (data or b"") + more
        return data

    async def _read1(self, size: int) -> bytes:
        while True:
            data: bytes = self._buffers().read1(size)
            if not await self._fed():
                return data

    async def _write(self, data: Any) -> int:
        size: int = self._buffers().write(data)
        if self._raw.accepted:
            await self._give()
        return size

    async def _flush(self) -> None:
        self._buffers().flush()
        if self._raw.accepted:
            await self._give()

    async def _seek(self, offset: int, whence: int) -> int:
        turn = self._turn
        if self.closed or not self._turn.file.seekable():
            return self._buffers().seek(offset, whence)
        await self._flush()
        if whence not in (os.SEEK_SET, os.SEEK_CUR):
            # Where the end is only the device may know.
            found: list[int] = []
            await turn.fly(turn.backend.submit(turn.landed, far, turn.fd, offset, whence), found.append)
            offset, whence = found[0], os.SEEK_SET
        return self._buffers().seek(offset, whence)

    async def _truncate(self, size: int | None) -> int:
        if not self.closed and self._turn.can_write:
            await self._flush()
        length: int = self._buffers().truncate(size)
        cut, self._raw.cut = self._raw.cut, None
        if cut is not None:
            turn = self._turn
            await turn.fly(turn.backend.submit(turn.landed, os.ftruncate, turn.fd, cut), nothing)
        return length

    async def _close(self) -> None:
        turn = self._turn
        if turn.fd < 0:
            return
        try:
            if self._made is not None:
                self._made.close()
            if self._raw.accepted:
                await self._give()
        finally:
            self._raw.close()
            if not turn.flying:
                await turn.close()

    def _buffers(self) -> Buffered:
        """The buffers of io, over what was fetched."""
        if self._made is None:
            raw, size = self._raw, self._buffering
            if size < 0:
                size = io.DEFAULT_BUFFER_SIZE if self.closed else usual_size(self._turn)
            made: Buffered
            if not self._turn.can_write:
                made = io.BufferedReader(raw, size)
            elif not self._turn.can_read:
                made = io.BufferedWriter(raw, size)
            else:
                made = io.BufferedRandom(raw, size)
            self._made = made
        return self._made

    def _drop(self) -> None:
        if self._made is not None and self._turn.can_write:
            with contextlib.suppress(OSError, ValueError):  # nobody is left to be told
                self._made.flush()
        in_background(self._turn, self._finish)

    def _finish(self) -> None:
        """Write what the buffers have let go of and close the descriptor, in a thread."""
        with contextlib.suppress(OSError):
            self._raw.settle()
        self._turn.close_now()

    async def _fed(self, taken: Any = b"") -> bool:
        """Whether the call before found too little fetched: then that is fetched now, and the call goes on.

        `taken` is what that call has given; it goes back where the task is cancelled.
        """
        wanted, self._raw.wanted = self._raw.wanted, None
        if wanted is None:
            return False
        try:
            await self._fetch(wanted)
        except BaseException:
            self._put_back(bytes(taken or b""))
            raise
        return True

    async def _fetch(self, size: int) -> None:
        raw = self._raw
        if raw.accepted:
            await self._give()
        turn = self._turn
        if size == ALL:
            data = turn.read_now()
            if data is None:
                await turn.read_all(self._arrived_all)
            else:
                self._arrived_all(data)
            return
        try:
            await turn.fly(turn.backend.read(turn.landed, turn.fd, size), raw.stage)
        except BlockingIOError:
            raw.blocked = True

    def _arrived_all(self, data: bytes | None) -> None:
        if data is None:
            self._raw.blocked = True
        else:
            self._raw.stage(data, ended=True)

    async def _give(self) -> None:
        """Write what the buffers have let go of."""
        raw, turn = self._raw, self._turn
        while data := raw.pending():
            try:
                await turn.fly(turn.backend.write(turn.landed, turn.fd, data), raw.given)
            except BlockingIOError:
                raise BlockingIOError(errno.EAGAIN, "write could not complete without blocking", 0) from None

    def _put_back(self, data: bytes) -> None:
        """Undo that `data` was taken out of the buffers, which are empty now."""
        if self._made is not None and data:
            self._raw.push_back(data)
            self._made.detach()
            self._made = None

    def __del__(self) -> None:
        # As for a file of io, what is in its buffer is written; that it was not closed is said by the descriptor.
        if self._made is not None and not self.closed and self._turn.can_write and not self._turn.flying:
            with contextlib.suppress(OSError, ValueError):
                self._made.flush()
                self._raw.settle()


def usual_size(descriptor: Descriptor) -> int:
    """The size of a buffer where nobody has asked for one."""
    size = os.fstat(descriptor.fd).st_blksize
    usual = size if size > 1 else io.DEFAULT_BUFFER_SIZE
    if io.DEFAULT_BUFFER_SIZE > 8192:  # since Python 3.14
        usual = max(min(size, 1 << 23), io.DEFAULT_BUFFER_SIZE)
    return usual if descriptor.can_write else max(usual, READ_AHEAD)


def far(fd: int, offset: int, whence: int) -> int:
    """The position that `os.lseek` would go to."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    there = os.lseek(fd, offset, whence)
    os.lseek(fd, here, os.SEEK_SET)
    return there
