"""The layer below the buffered classes of `io`, without the input and output.

`io.BufferedReader` and its kin cannot wait. So they are put over a `Raw`, which has what was fetched for them and takes
what they write. One that finds nothing fetched is told that reading would block, leaves what it needs in `wanted`, and
is called again when that was fetched. What it has written is given to the descriptor behind its call.
"""

from __future__ import annotations

import io
import os
from typing import Any

from ._descriptor import Descriptor

#: `Raw.wanted` for all there is.
ALL = -1


class Raw(io.RawIOBase):
    """What is between a buffered class and a descriptor."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        #: What was read from the descriptor and not taken yet; b"" is its end.
        self.fetched: bytes | None = None
        #: Whether nothing comes behind what was fetched.
        self.ended = False
        #: Set where a call found nothing fetched: how many bytes it asked for.
        self.wanted: int | None = None
        #: Whether reading would block: the descriptor is one that does not wait.
        self.blocked = False
        #: What was written and not given to the descriptor yet.
        self.accepted: list[bytes] = []
        #: Where to cut the file, for a call of `truncate`.
        self.cut: int | None = None

    @property
    def name(self) -> Any:
        """The path or the descriptor that was opened."""
        return self.descriptor.file.name

    @property
    def mode(self) -> str:
        """The mode, as `io.FileIO` writes it."""
        return self.descriptor.file.mode

    def readable(self) -> bool:
        return self.descriptor.can_read

    def writable(self) -> bool:
        return self.descriptor.can_write

    def seekable(self) -> bool:
        return self.descriptor.file.seekable()

    def fileno(self) -> int:
        return self.descriptor.file.fileno()

    def isatty(self) -> bool:
        return self.descriptor.file.isatty()

    def stage(self, data: bytes, *, ended: bool = False) -> None:
        """What was read from the descriptor, behind what is there."""
        self.fetched = self.fetched + data if self.fetched else data
        self.ended = ended

    def push_back(self, data: bytes) -> None:
        """What was taken and is not wanted after all, before what is there."""
        if data:
            self.fetched = data + (self.fetched or b"")

    def take_all(self) -> bytes:
        """All that was fetched."""
        data, self.fetched, self.ended = self.fetched or b"", None, False
        return data

    def readinto(self, buffer: Any) -> int | None:
        data = self.fetched
        if data is None:
            self._starve(len(buffer))
            return None
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        self.fetched = data[size:] or None
        return size

    def readall(self) -> bytes | None:  # type: ignore[override]
        if not self.ended:
            self._starve(ALL)
            return None
        return self.take_all()

    def write(self, data: Any) -> int:
        if self.fetched:
            self.descriptor.file.seek(-len(self.fetched), os.SEEK_CUR)
        self.fetched, self.ended = None, False
        taken = bytes(data)
        self.accepted.append(taken)
        return len(taken)

    def pending(self) -> bytes:
        """All that was written and not given to the descriptor yet."""
        if len(self.accepted) > 1:
            self.accepted = [b"".join(self.accepted)]
        return self.accepted[0] if self.accepted else b""

    def given(self, size: int) -> None:
        """The descriptor has taken `size` bytes of what is pending."""
        rest = self.pending()[size:]
        self.accepted = [rest] if rest else []

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR and offset == 0:
            return self.tell()  # what was fetched is still what comes next
        self.settle()
        ahead, self.fetched, self.ended = len(self.fetched or b""), None, False
        return self.descriptor.file.seek(offset - ahead if whence == os.SEEK_CUR else offset, whence)

    def tell(self) -> int:
        return self.descriptor.file.tell() - len(self.fetched or b"") + len(self.pending())

    def truncate(self, size: int | None = None) -> int:
        self.cut = self.tell() if size is None else size
        return self.cut

    def settle(self) -> None:
        """Give what was written to the descriptor now: where there is nobody left to wait for it."""
        while data := self.pending():
            self.given(os.write(self.descriptor.fd, data))

    def _starve(self, size: int) -> None:
        if self.blocked:
            self.blocked = False
        else:
            self.wanted = size
