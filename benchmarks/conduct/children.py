"""Checks of subprocesses and pipes: what a program is told of a child, whose children they are, when bytes leave."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.conduct.check import Loop, check, demand, expect, run, settle
from benchmarks.conduct.ends import LONG, Recorder, within

CHUNK = 64 * 1024
SPAWNING = ("spawn",)
PIPES = ("pipe_*",)


def python(code: str) -> tuple[str, ...]:
    """A child that runs this code."""
    return (sys.executable, "-S", "-E", "-c", code)


@check(*SPAWNING)
def children_end_as_they_ended(loop: Loop) -> None:
    """A child's status is its own: what it exited with, or the negative number of the signal that killed it."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
        expect(await within(child.wait()), 3, "the status of one that exits with 3")
        expect(child.returncode, 3, "returncode")
        child = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
        expect(child.returncode, None, "returncode while it runs")
        child.terminate()
        both = await within(asyncio.gather(child.wait(), child.wait()))
        expect(both, [-signal.SIGTERM] * 2, "the status of one that is terminated, for two who wait")
        expect(await within(child.wait()), -signal.SIGTERM, "its status for one who asks later")

    run(loop, main())


@check(*SPAWNING)
def children_are_reaped(loop: Loop) -> None:
    """When a child's end is told, it is no zombie any more, and signals for it are refused."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("/bin/true")
        await within(child.wait())
        demand(not is_child(child.pid), "it is a zombie")
        # Of a child that has ended before anybody waited for it, the transport's end may be under way.
        await settle()
        try:
            child.send_signal(signal.SIGTERM)
        except ProcessLookupError:
            pass
        else:
            demand(False, "a signal for it is not refused")

    run(loop, main())


@check(*SPAWNING)
def children_of_others_are_left(loop: Loop) -> None:
    """A loop that has children of its own does not reap those that others have made."""

    async def main() -> None:
        for _ in range(5):
            child = await asyncio.create_subprocess_exec("/bin/true")
            await within(child.wait())
            await settle()

    with subprocess.Popen(["/bin/sh", "-c", "exit 5"]) as theirs:
        run(loop, main())
        expect(theirs.wait(LONG), 5, "the status of another's child")


@check(*SPAWNING)
def handlers_of_sigchld_are_left(loop: Loop) -> None:
    """A program's own handler of SIGCHLD stays in its place, and hears of the loop's children."""
    heard: list[int] = []

    def handler(number: int, frame: object) -> None:
        heard.append(number)

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("/bin/true")
        await within(child.wait())
        await settle()

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        run(loop, main())
        expect(signal.getsignal(signal.SIGCHLD), handler, "the handler afterwards")
        demand(heard, "the handler hears of no child")
    finally:
        signal.signal(signal.SIGCHLD, before)


@check()
def an_end_does_not_wait_for_pipes(loop: Loop) -> None:
    """A child's end is told also while another process holds the pipes that it had."""

    async def main() -> None:
        transport, protocol = await told("/bin/sh", "-c", "sleep 1000 & echo $!")
        try:
            await within(protocol.exited)
            expect(transport.get_returncode(), 0, "the status")
            expect(("lost", 1) in protocol.told, False, "whether its output ended")
        finally:
            holder = int(await within(protocol.said))
            os.kill(holder, signal.SIGKILL)
            transport.close()
            await within(protocol.lost)

    run(loop, main())


@check()
def the_last_word_is_the_end(loop: Loop) -> None:
    """Of a child its protocol hears each output's end, the exit and, once and last, that its transport is lost."""

    async def main() -> None:
        _, protocol = await told("/bin/sh", "-c", "echo out; echo err >&2")
        await within(protocol.lost)
        await settle()
        heard = protocol.told
        expect(heard[0], "made", "what it heard first")
        expect(heard[-1], "lost", "what it heard last")
        ends = sorted(str(what) for what in heard if what not in ("made", "lost") and what[0] != "received")
        expect(ends, ["('lost', 0)", "('lost', 1)", "('lost', 2)", "exited"], "which ends it heard of")
        expect(protocol.received, {1: b"out\n", 2: b"err\n"}, "what it received")

    run(loop, main())


@check(*SPAWNING)
def children_have_what_they_are_given(loop: Loop) -> None:
    """A child has the directory, the variables, the session and the descriptors that were asked for, and no other."""

    async def main() -> None:
        asked, unasked = os.pipe()
        os.set_inheritable(unasked, True)
        try:
            child = await asyncio.create_subprocess_exec(
                *python("import os; print(os.getcwd(), os.environ.get('A'), os.getsid(0) == os.getpid())"),
                stdout=subprocess.PIPE,
                cwd="/",
                env={"A": "b"},
                start_new_session=True,
            )
            answer, _ = await within(child.communicate())
            expect(answer, b"/ b True\n", "what it found")
            child = await asyncio.create_subprocess_exec(
                *python(
                    "import os, sys\n"
                    "def is_open(number):\n"
                    "    try: os.fstat(int(number)); return True\n"
                    "    except OSError: return False\n"
                    "print(*[is_open(number) for number in sys.argv[1:]])"
                ),
                str(asked),
                str(unasked),
                stdout=subprocess.PIPE,
                pass_fds=[asked],
            )
            answer, _ = await within(child.communicate())
            expect(answer, b"True False\n", "whether it has a descriptor that was asked for, and another")
        finally:
            os.close(asked)
            os.close(unasked)

    run(loop, main())


@check(*SPAWNING)
def children_have_pythons_signals(loop: Loop) -> None:
    """What Python ignores itself, as SIGPIPE, a child does not, and no signal is blocked in it."""

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("/bin/cat", "/proc/self/status", stdout=subprocess.PIPE)
        answer, _ = await within(child.communicate())
        masks = dict(line.split(":\t", 1) for line in answer.decode().splitlines() if line.startswith("Sig"))
        expect(int(masks["SigBlk"], 16), 0, "the signals that are blocked")
        ignored = int(masks["SigIgn"], 16)
        expect(bool(ignored >> (signal.SIGPIPE - 1) & 1), False, "whether SIGPIPE is ignored")

    run(loop, main())


@check(same=True)
def spawning_fails_as_asyncios(loop: Loop) -> object:
    """What cannot be spawned raises what asyncio raises, and leaves no descriptor behind."""

    async def main() -> list[object]:
        found: list[object] = []
        for command, options in (
            (["/does/not/exist"], {}),
            (["/etc/passwd"], {}),
            (["/bin/true"], {"cwd": "/does/not/exist"}),
            (["/bin/true"], {"universal_newlines": True}),
            (["/bin/true"], {"shell": True}),
            (["/bin/true"], {"bufsize": 1}),
        ):
            before = len(os.listdir("/proc/self/fd"))
            try:
                child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, **options)
            except Exception as error:
                found.append((type(error).__name__, getattr(error, "errno", None), str(error)))
            else:
                await child.communicate()
                found.append("nothing is raised")
            await settle()
            found.append(len(os.listdir("/proc/self/fd")) - before)
        return found

    return loop.run_until_complete(main())


@check()
def output_is_whole(loop: Loop) -> None:
    """`communicate` answers all that a child writes, of what is far more than a pipe holds."""

    async def main() -> None:
        data = bytes(range(256)) * 8192
        child = await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        answer, _ = await within(child.communicate(data))
        expect((len(answer), answer == data), (len(data), True), "how much came back, and whether it is the same")
        expect(child.returncode, 0, "the status")

    run(loop, main())


@check(*PIPES)
def a_pipe_has_bytes_at_once(loop: Loop) -> None:
    """With nothing queued, what is written to a pipe is in it when `write` returns."""

    async def main() -> None:
        async with pipe() as (transport, read):
            for _ in range(20):
                transport.write(b"bytes")
                expect(read.read(CHUNK), b"bytes", "what is in the pipe")
                await asyncio.sleep(0)

    run(loop, main())


@check(*PIPES)
def a_full_pipe_pauses_its_writer(loop: Loop) -> None:
    """What a pipe does not take waits, its writer is paused and resumed by its limits, and all of it comes."""

    async def main() -> None:
        async with pipe() as (transport, read):
            transport.set_write_buffer_limits(high=CHUNK, low=0)
            protocol = transport.get_protocol()
            data = os.urandom(8 * CHUNK)
            transport.write(data)
            expect(protocol.told, ["made", "pause"], "what the writer was told within write()")
            demand(transport.get_write_buffer_size() > 0, "nothing waits")
            came = b""
            while len(came) < len(data):
                more = read.read(CHUNK)
                if more is None:
                    await settle()
                else:
                    came += more
            expect(came == data, True, "whether all came as it was")
            await settle()
            expect(protocol.told, ["made", "pause", "resume"], "what the writer was told")
            expect(transport.get_write_buffer_size(), 0, "what waits in the end")

    run(loop, main())


@check(*PIPES)
def a_writer_hears_that_its_reader_is_gone(loop: Loop) -> None:
    """A pipe without a reader is lost, without a write that fails."""

    async def main() -> None:
        async with pipe() as (transport, read):
            read.close()
            protocol = transport.get_protocol()
            await within(protocol.lost)
            expect(transport.is_closing(), True, "is_closing()")
            expect(protocol.told[:2], ["made", ("lost", None)], "what the writer was told")

    run(loop, main())


@check(*PIPES)
def a_reader_may_pause(loop: Loop) -> None:
    """A pipe that is paused tells nothing until it is resumed, and its end comes behind its last bytes, once."""

    async def main() -> None:
        read, write = os.pipe()
        transport, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(read, "rb", 0))
        transport.pause_reading()
        os.write(write, b"first")
        await settle()
        expect(protocol.told, ["made"], "what it was told while it was paused")
        transport.resume_reading()
        await settle()
        expect(protocol.told, ["made", b"first"], "what it was told then")
        os.write(write, b"last")
        os.close(write)
        await within(protocol.lost)
        await settle()
        expect(protocol.told, ["made", b"first", b"last", "eof", ("lost", None)], "what it was told in the end")

    run(loop, main())


class Told(asyncio.SubprocessProtocol):
    """A child's protocol that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.received: dict[int, bytes] = {}
        loop = asyncio.get_running_loop()
        self.said: asyncio.Future[bytes] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.told.append(("received", fd))
        self.received[fd] = self.received.get(fd, b"") + data
        if not self.said.done():
            self.said.set_result(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.told.append(("lost", fd))

    def process_exited(self) -> None:
        self.told.append("exited")
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(None)


async def told(*command: str) -> tuple[asyncio.SubprocessTransport, Told]:
    """A child with three pipes, whose protocol notes what it is told."""
    return await asyncio.get_running_loop().subprocess_exec(Told, *command)


@contextlib.asynccontextmanager
async def pipe() -> AsyncIterator[tuple[Any, io.FileIO]]:
    """A pipe: the transport that writes to it, and the end to read from, which does not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    with io.FileIO(read) as end:
        transport, protocol = await asyncio.get_running_loop().connect_write_pipe(Recorder, io.FileIO(write, "w"))
        try:
            yield transport, end
        finally:
            # asyncio's does not take an abort when it is lost.
            if not transport.is_closing():
                transport.abort()
            await within(protocol.lost)


def is_child(pid: int) -> bool:
    """Whether there is such a child, be it one that has ended."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


CHECKS = [
    children_end_as_they_ended,
    children_are_reaped,
    children_of_others_are_left,
    handlers_of_sigchld_are_left,
    an_end_does_not_wait_for_pipes,
    the_last_word_is_the_end,
    children_have_what_they_are_given,
    children_have_pythons_signals,
    spawning_fails_as_asyncios,
    output_is_whole,
    a_pipe_has_bytes_at_once,
    a_full_pipe_pauses_its_writer,
    a_writer_hears_that_its_reader_is_gone,
    a_reader_may_pause,
]
