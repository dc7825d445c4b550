"""Runs a program to which the kernel refuses io_uring, as it does in many containers:

    python tests/refusing.py EPERM python -m pytest

The filter is a seccomp one. It holds for the program and all that it starts, and cannot be taken back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000

# The same number on every architecture that Python is built for.
IO_URING_SETUP = 425


def refuse(number: int, call: int = IO_URING_SETUP) -> None:
    """Have a system call fail with an error in this thread, and in what it starts, from now on.

    :raises OSError: where the kernel has no such filters.
    """
    # Load the call's number; if it is this one skip nothing, else skip one; fail; allow.
    instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, SECCOMP_RET_ERRNO | number)]
    instructions.append((0x06, 0, 0, SECCOMP_RET_ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in instructions))
    program = ctypes.create_string_buffer(struct.pack("HL", len(instructions), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))):
        if libc.prctl(*[ctypes.c_ulong(argument) for argument in arguments], 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    refuse(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
