"""Programs run by ``asyncio.create_subprocess_exec`` on the loop under test."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT

import pytest

from .harness import LoopUnderTest
from .servers.payload import payload


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 8 << 20])
def test_communicates_more_than_a_pipe_holds(loop_under_test: LoopUnderTest, size: int) -> None:
    """uvloop#363: ``communicate`` through cat stopped at 65,537 bytes."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        output, errors = await process.communicate(payload(size))
        assert output == payload(size)
        assert errors is None
        assert process.returncode == 0

    loop_under_test.run(main())


def test_reads_both_outputs(loop_under_test: LoopUnderTest) -> None:
    program = (
        "import sys\n"
        "for number in range(20000):\n"
        "    print(number, file=sys.stdout if number % 2 else sys.stderr)\n"
        "sys.exit(3)\n"
    )

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE, stderr=PIPE)
        output, errors = await process.communicate()
        assert [int(line) for line in output.split()] == list(range(1, 20_000, 2))
        assert [int(line) for line in errors.split()] == list(range(0, 20_000, 2))
        assert process.returncode == 3

    loop_under_test.run(main())


def test_talks_line_by_line(loop_under_test: LoopUnderTest) -> None:
    program = "import sys\nfor line in sys.stdin:\n    print(line.upper(), end='', flush=True)\n"

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(200):
            process.stdin.write(b"line %d\n" % number)
            await process.stdin.drain()
            assert await process.stdout.readline() == b"LINE %d\n" % number
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    loop_under_test.run(main())


def test_many_at_once(loop_under_test: LoopUnderTest) -> None:
    async def one(number: int) -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(payload(number * 10_000))
        assert output == payload(number * 10_000)
        assert process.returncode == 0

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(30)))

    loop_under_test.run(main())


def test_signals_and_exit_codes(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "3600", stdin=DEVNULL)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        # From Python 3.13 on `wait` does not wait for the end of the pipes, behind which the process is forgotten.
        with pytest.raises(ProcessLookupError):
            while True:
                process.kill()
                await asyncio.sleep(0)
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/nonexistent/program")
        shell = await asyncio.create_subprocess_shell("echo out; echo err >&2; exit 7", stdout=PIPE, stderr=STDOUT)
        assert await shell.communicate() == (b"out\nerr\n", None)
        assert shell.returncode == 7

    loop_under_test.run(main())


def test_a_cancelled_communication_can_be_ended(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.stdout.readline(), 0.01)
        communication = asyncio.create_task(process.communicate(payload(1 << 20)))
        await asyncio.sleep(0)
        communication.cancel()
        with pytest.raises(asyncio.CancelledError):
            await communication
        process.kill()
        await process.wait()

    loop_under_test.run(main())


def test_a_program_that_does_not_read_its_input(loop_under_test: LoopUnderTest) -> None:
    """A broken pipe while writing is no error of ``communicate``."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(payload(4 << 20)) == (b"", None)
        assert process.returncode == 0

    loop_under_test.run(main())
