"""Files without blocking the loop.

`open` gives files with the methods of the builtin one, as coroutines; the other functions are those of `os` of the same
names, on descriptors. The kernel does what is asked by io_uring, or threads of the loop's default executor where
that is refused. All of it works on any asyncio loop.
"""

from . import os
from ._descriptors import close, fsync, pread, pwrite, read, stat, write
from ._open import open

__all__ = ["close", "fsync", "open", "os", "pread", "pwrite", "read", "stat", "write"]
