"""Files of text, over files of bytes: what `io.TextIOWrapper` is, each call of it awaited.

Decoders and encoders are those of `codecs` and `io`. Positions are the numbers that `io.TextIOWrapper` gives, and where
something is refused it is asked for the words.
"""

from __future__ import annotations

import codecs
import functools
import io
import os
import re
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn

from ._binary import BufferedFile
from ._descriptor import Descriptor
from ._file import File, lines_of

#: What is read at a time at first, in bytes; that of a line that does not end grows.
CHUNK = 8192
#: The same of a file that is only read.
READ_ONLY_CHUNK = 1 << 16
#: What is read at a time at most.
MOST = 1 << 24

#: Encodings without a state or a mark, in which each line's end is that of ASCII.
ASCII_BASED = {"utf-8", "utf8", "ascii", "latin-1", "iso8859-1"}

LINE_END = re.compile(r"\r\n|\r|\n")


def check(encoding: str, errors: str | None, newline: str | None) -> tuple[str, str]:
    """The names of an encoding and of what it does about errors, as `io.TextIOWrapper` has them.

    Raises LookupError, ValueError or TypeError as that does.
    """
    wrapper = io.TextIOWrapper(io.BytesIO(), encoding, errors, newline)
    return wrapper.encoding, wrapper.errors or "strict"


checked = functools.lru_cache(maxsize=64)(check)

#: The methods that have the file to themselves.
IN_TURN = ("_read", "readline", "write", "writelines", "flush", "seek", "tell", "truncate")


class TextFile(File[str], in_turn=IN_TURN):
    """A file of text."""

    __slots__ = (
        "_below",
        "_buffering",
        "_decoder",
        "_encoder",
        "_encoding",
        "_errors",
        "_line_buffering",
        "_lines_seen",
        "_mode",
        "_newline",
        "_source",
        "_state",
        "_text",
        "_used",
        "_whole",
    )

    def __init__(
        self,
        descriptor: Descriptor,
        buffering: int,
        encoding: str,
        errors: str,
        newline: str | None,
        line_buffering: bool,
        mode: str,
    ) -> None:
        self._turn = descriptor
        #: The size of the buffer in bytes, -1 for the usual one.
        self._buffering = buffering
        #: The file of bytes below, once something needs it: a file that is read as a whole needs none.
        self._below: BufferedFile | None = None
        self._encoding = encoding
        self._errors = errors
        #: As in `open`: None to read any end of a line as \n, "" to read any as it is, or the one that there is.
        self._newline = newline
        self._line_buffering = line_buffering
        self._mode = mode
        #: What was read of the file as a whole, on its way to whoever asked.
        self._whole: bytes | None = None
        #: Whether \n was read in a text that needed no decoder.
        self._lines_seen = False
        #: Made when something is read.
        self._decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder | None = None
        #: Made when something is written.
        self._encoder: codecs.IncrementalEncoder | None = None
        #: What was decoded, and how many characters of it were given out.
        self._text = ""
        self._used = 0
        #: What `_text` was decoded from, and the state that the decoder was in before; None where nobody knows.
        self._source: list[bytes] | None = None
        self._state = 0
        if descriptor.can_write:
            if descriptor.can_read:
                self._buffer()  # refuses what has no positions
            if file_position(descriptor.file):
                self._begin_encoding(at_start=False)

    @property
    def buffer(self) -> BufferedFile:
        """The file of bytes below."""
        return self._buffer()

    def _buffer(self) -> BufferedFile:
        if self._below is None:
            self._below = BufferedFile(self._turn, self._buffering)
            if self._whole is not None:
                self._below._arrived_all(self._whole)
                self._whole = None
        return self._below

    @property
    def encoding(self) -> str:
        """The name of the encoding."""
        return self._encoding

    @property
    def errors(self) -> str:
        """What is done about errors of decoding and encoding."""
        return self._errors

    @property
    def line_buffering(self) -> bool:
        """Whether each end of a line is written at once."""
        return self._line_buffering

    @property
    def newlines(self) -> str | tuple[str, ...] | None:
        """The ends of lines that were read so far, where they are translated."""
        if self._decoder is None and self._lines_seen:
            return "\n"
        return getattr(self._decoder, "newlines", None)

    @property
    def mode(self) -> str:
        """The mode that was asked for."""
        return self._mode

    async def read(self, size: int | None = -1, /) -> str:
        """Up to `size` characters, fewer only at the end of the file, or all there are; "" at its end."""
        turn = self._turn
        if turn.taken or self._below is not None or turn.fd < 0 or not turn.can_read or size not in (-1, None):
            return await self._read(size)
        # The usual case: all of a file, of which nothing was read.
        turn.taken = True
        try:
            if self._whole is None:
                self._whole = turn.read_now()
                if self._whole is None:
                    await turn.read_all(self._arrived)
            data, self._whole = self._whole, None
            if data and self._decoder is None and not self._newline and self._encoding.lower() in ASCII_BASED:
                text = data.decode(self._encoding, self._errors)
                if "\r" not in text:
                    self._lines_seen = self._lines_seen or "\n" in text
                    return text
            decoder = self._decoder or self._begin_decoding()
            return decoder.decode(data or b"", True)
        finally:
            turn.release()

    def _arrived(self, data: bytes | None) -> None:
        self._whole = data

    async def _read(self, size: int | None) -> str:
        if self.closed or not self._turn.can_read or not (size is None or isinstance(size, int)):
            self._refuse("read", size)
        if size is None or size < 0:
            decoder = self._decoder or self._begin_decoding()
            data = await self._buffer()._read()
            text = decoder.decode(data or b"", True)
            if self._text:
                text = self._text[self._used :] + text
                self._text, self._used = "", 0
            self._source = None
            return text
        while len(self._text) - self._used < size:
            if not await self._fill(size):
                break
        start = self._used
        self._used = min(start + size, len(self._text))
        return self._text[start : self._used]

    async def readline(self, size: int = -1, /) -> str:
        """A line with its end, or up to `size` characters of it; "" at the end of the file."""
        if self.closed or not self._turn.can_read or not isinstance(size, int):
            self._refuse("readline", size)
        limit = -1 if size < 0 else size
        searched = self._used
        chunk = CHUNK
        while True:
            end = self._find_line_end(searched)
            if end >= 0 or 0 <= limit <= len(self._text) - self._used:
                break
            searched = max(len(self._text) - 1, self._used) - self._used
            if not await self._fill(chunk):
                end = len(self._text)
                break
            searched += self._used
            chunk = min(chunk * 2, MOST)
        start = self._used
        if end < 0 or 0 <= limit < end - start:
            end = start + limit
        self._used = end
        return self._text[start:end]

    async def readlines(self, hint: int | None = -1, /) -> list[str]:
        """The lines from here on, up to the one with which they have more than `hint` characters."""
        return await lines_of(self, hint)

    async def __anext__(self) -> str:
        if not self._turn.taken and not self.closed:
            end = self._find_line_end(self._used)
            if end >= 0:
                start, self._used = self._used, end
                return self._text[start:end]
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def write(self, text: str, /) -> int:
        """Write characters and return how many."""
        return await self._write(text)

    async def writelines(self, lines: Iterable[str], /) -> None:
        """Write each of `lines`."""
        if self.closed:
            self._turn.file.writelines(())  # raises
        for line in lines:
            await self._write(line)

    async def flush(self) -> None:
        """Write what is in the buffer."""
        if self.closed:
            self._refuse("flush")
        await self._buffer()._flush()

    async def seek(self, cookie: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position that `tell` has given, to the start or to the end; return it."""
        if self.closed:
            self._refuse("seek", cookie, whence)
        if not self._turn.file.seekable():
            raise io.UnsupportedOperation("underlying stream is not seekable")
        if whence == os.SEEK_CUR and cookie == 0:
            cookie, whence = await self._tell(), os.SEEK_SET
        elif whence == os.SEEK_END and cookie == 0:
            position = await self._buffer()._seek(0, os.SEEK_END)
            self._forget()
            if self._decoder is not None:
                self._decoder.reset()
            self._begin_encoding(at_start=position == 0)
            return position
        if whence != os.SEEK_SET or not isinstance(cookie, int) or cookie < 0:
            self._refuse("seek", cookie, whence)
        position, state, size, final, skip = unpacked(cookie)
        await self._buffer()._seek(position, os.SEEK_SET)
        self._forget()
        if self._turn.can_read and (cookie or self._decoder is not None):
            decoder = self._decoder or self._begin_decoding()
            decoder.setstate((b"", state)) if position or state else decoder.reset()
            if skip:
                data = await self._buffer()._read(size) or b""
                self._text = decoder.decode(data, final)
                self._source, self._state = [data], state
                if len(self._text) < skip:
                    raise OSError("can't restore logical file position")
                self._used = skip
        self._begin_encoding(at_start=cookie == 0)
        return cookie

    async def tell(self) -> int:
        """The position, for `seek`. In encodings whose characters stand alone it is that in bytes."""
        if self.closed:
            self._refuse("tell")
        if not self._turn.file.seekable():
            raise io.UnsupportedOperation("underlying stream is not seekable")
        return await self._tell()

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut the file to `size` bytes, or where its buffer is; return the size."""
        if self.closed:
            self._refuse("truncate", size)
        return await self._buffer()._truncate(size)

    async def _write(self, text: str) -> int:
        if self.closed or not self._turn.can_write or not isinstance(text, str):
            self._refuse("write", text)
        encoder = self._encoder or self._begin_encoding(at_start=True)
        ends_line = self._line_buffering and ("\n" in text or "\r" in text)
        written = text
        if self._newline and self._newline != "\n":
            written = text.replace("\n", self._newline)
        await self._buffer()._write(encoder.encode(written))
        self._forget()
        if self._decoder is not None:
            self._decoder.reset()
        if ends_line:
            await self._buffer()._flush()
        return len(text)

    async def close(self) -> None:
        turn = self._turn
        if turn.closes_now and self._below is None and not turn.taken:
            turn.close_now()  # the usual case, without what it takes to wait
        else:
            await super().close()

    def _close(self) -> Coroutine[Any, Any, None]:
        return self._turn.close() if self._below is None else self._below._close()

    def _drop(self) -> None:
        self._buffer()._drop()

    async def _tell(self) -> int:
        await self._buffer()._flush()
        position = self._buffer()._buffers().tell()
        if self._decoder is None or self._source is None:
            return position
        source = b"".join(self._source)
        # What was read is decoded once more by one who can say where each character begins.
        wrapper = io.TextIOWrapper(io.BytesIO(source), self._encoding, self._errors, self._newline)
        wrapper._CHUNK_SIZE = max(len(source), 1)  # type: ignore[attr-defined]
        wrapper.seek(self._state << 64)
        wrapper.read(self._used)
        return position - len(source) + wrapper.tell()

    async def _fill(self, size: int) -> bool:
        """Decode some more bytes, about `size`. False at the end of the file."""
        decoder = self._decoder or self._begin_decoding()
        if self._used == len(self._text):
            self._text, self._used = "", 0
            before, self._state = decoder.getstate()
            self._source = [before]
        data = await self._buffer()._read1(max(CHUNK if self._turn.can_write else READ_ONLY_CHUNK, size))
        if self._source is not None:
            self._source.append(data)
        self._text += decoder.decode(data, not data)
        return bool(data)

    def _find_line_end(self, start: int) -> int:
        """Where the first line of the text ends, looked for from `start` on; -1 where it does not."""
        newline = self._newline
        if newline == "":
            found = LINE_END.search(self._text, start)
            return found.end() if found else -1
        newline = newline or "\n"
        index = self._text.find(newline, start)
        return index if index < 0 else index + len(newline)

    def _forget(self) -> None:
        """What was decoded is not what comes next."""
        self._text, self._used, self._source = "", 0, None

    def _begin_decoding(self) -> codecs.IncrementalDecoder | io.IncrementalNewlineDecoder:
        decoder = codecs.getincrementaldecoder(self._encoding)(self._errors)
        if not self._newline:
            self._decoder = io.IncrementalNewlineDecoder(decoder, translate=self._newline is None)
            if self._lines_seen:
                self._decoder.decode(b"\n")
        else:
            self._decoder = decoder
        return self._decoder

    def _begin_encoding(self, *, at_start: bool) -> codecs.IncrementalEncoder:
        """An encoder that writes the mark of its encoding only at the start of the file."""
        if self._encoder is None:
            self._encoder = codecs.getincrementalencoder(self._encoding)(self._errors)
        if at_start:
            self._encoder.reset()
        else:
            self._encoder.setstate(0)
        return self._encoder

    def _refuse(self, method: str, *arguments: Any) -> NoReturn:
        """Have `io.TextIOWrapper` refuse a call."""
        below: Any = io.BytesIO()
        if not self.closed and not self._turn.can_read:
            below = io.BufferedWriter(self._buffer()._raw)
        elif not self.closed and not self._turn.can_write:
            below = io.BufferedReader(self._buffer()._raw)
        wrapper = io.TextIOWrapper(below, "utf-8")
        if self.closed:
            wrapper.close()
        try:
            getattr(wrapper, method)(*arguments)
        finally:
            if not self.closed:
                wrapper.detach()
                if below is not wrapper and hasattr(below, "raw"):
                    below.detach()
        raise TypeError(f"{method}() was called with {arguments!r}")


def file_position(file: io.FileIO) -> int:
    """The position of a descriptor, 0 where it has none."""
    return file.tell() if file.seekable() else 0


def unpacked(cookie: int) -> tuple[int, int, int, bool, int]:
    """What `io.TextIOWrapper` packs into a position.

    Where to go in bytes, the state of the decoder there, how many bytes to decode from there, whether they are the
    last, and how many of their characters to skip.
    """
    long, short = (1 << 64) - 1, (1 << 32) - 1
    return (
        cookie & long,
        cookie >> 64 & short,
        cookie >> 96 & short,
        bool(cookie >> 160 & 0xFF),
        cookie >> 128 & short,
    )
