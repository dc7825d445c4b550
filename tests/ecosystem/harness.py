"""What the tests of this directory share: the loop under test, and servers in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that anything may take which is expected soon. It only bounds a failure: no test waits for it to pass.
DEADLINE = 60.0

SERVERS = Path(__file__).parent / "servers"

#: Programs that do something on the loop that their command line names, print what they found, and end.
PROGRAMS = Path(__file__).parent / "programs"

#: What to run a program by that must not outlive a test run which is killed: nothing else would end it then.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def package_of(loop: asyncio.AbstractEventLoop) -> str:
    """The top-level package that a loop's class comes from, such as ``asyncio`` or ``hotloop``."""
    return type(loop).__module__.partition(".")[0]


@dataclass(frozen=True)
class LoopUnderTest:
    """One of the loops that every test of this directory runs on."""

    name: str
    """The id of the parameter: ``asyncio``, ``selector`` or ``proactor``."""
    factory: str
    """Where programs find the factory: ``module:callable``, as their command lines take it."""

    @property
    def package(self) -> str:
        """The package that a loop of this kind must turn out to come from."""
        return self.factory.partition(":")[0]

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop, as ``loop_factory=`` of asyncio's runner wants it."""
        module, _, attribute = self.factory.partition(":")
        loop = getattr(importlib.import_module(module), attribute)()
        assert package_of(loop) == self.package
        return loop

    def run(self, main: Coroutine[Any, Any, T], *, tolerated: str | None = None) -> T:
        """Run `main` on a new loop of this kind and give back what it returns.

        Whatever reaches the loop's exception handler meanwhile fails the test: what a library would only log is, on a
        loop that is being tested, an error nobody would have seen. So does a task left running. What a library reports
        on stock asyncio too is `tolerated`, given as a part of its text.
        """
        reported: list[str] = []

        def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            # As text: holding the context itself would keep transports alive past their loop.
            said = f"{context.get('message')}: {context.get('exception')!r}"
            if tolerated is None or tolerated not in said:
                reported.append(said)

        async def bounded() -> tuple[T, list[str]]:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(report)
            assert package_of(loop) == self.package
            async with asyncio.timeout(DEADLINE):
                result = await main
            left = asyncio.all_tasks() - {asyncio.current_task()}
            # A task that was told to go needs its turn to go; one that stays was forgotten.
            if left:
                await asyncio.wait(left, timeout=1)
            return result, [repr(task) for task in left if not task.done()]

        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            result, left = runner.run(bounded())
        # Unclosed sockets and unawaited coroutines speak up when they are collected: here, not in a later test.
        gc.collect()
        assert not reported, reported
        assert not left, left
        return result


def run_program(name: str, loop: LoopUnderTest, *arguments: str) -> Any:
    """Run one of the programs, for what changes a whole process, and give the JSON of the last line that it prints.

    Raises:
        AssertionError: it fails, or reports something that asyncio's loops log.
    """
    run = subprocess.run(
        [*DIES_WITH_US, sys.executable, str(PROGRAMS / f"{name}.py"), loop.factory, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "OTEL_"))},
        timeout=DEADLINE,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in run.stderr, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now, for programs that cannot be asked to choose one themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class ServerProcess:
    """A program in a process of its own, with every line it prints kept.

    Its output is read by a thread, so that it never blocks on a full pipe and a test can wait for a line.
    """

    def __init__(self, argv: Sequence[str], *, env: dict[str, str] | None = None, **popen: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SERVERS)} | (env or {})
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._process = subprocess.Popen(
            [*DIES_WITH_US, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            **popen,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {argv[0]}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything printed so far."""
        with self._changed:
            return "\n".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which `pattern` is found; see `wait_for_times`."""
        return self.wait_for_times(pattern, 1)[0]

    def wait_for_times(self, pattern: str, times: int) -> list[re.Match[str]]:
        """Wait until `pattern` was found in so many lines, and give the first `times` of the matches.

        Raises:
            AssertionError: the program ended, or `DEADLINE` passed, before; what it did print is shown.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + DEADLINE
        with self._changed:
            while True:
                matches = [match for line in self._lines if (match := expression.search(line))]
                if len(matches) >= times:
                    return matches[:times]
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0:
                    why = "ended" if self._ended else "has been running"
                    printed = "\n".join(self._lines)
                    raise AssertionError(f"the program {why} without printing {pattern!r} {times}x, but:\n{printed}")
                self._changed.wait(remaining)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the program's end and its last line; give its exit code, negative for a signal.

        Raises:
            AssertionError: it does not end within `DEADLINE`; it is killed then.
        """
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the program did not end; it printed:\n{self.output}") from None
        self._reader.join(DEADLINE)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and give the exit code.

        Raises:
            AssertionError: it does not end, or it printed a traceback in its life.
        """
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self.wait()
        assert "Traceback" not in self.output, self.output
        return code

    def kill(self) -> None:
        """End it and the processes it started, whatever they do, for tear-down after a failure.

        Does nothing where it has ended: its group's number could be another's then.
        """
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(DEADLINE)


class Uvicorn(ServerProcess):
    """``python -m uvicorn APP``, ready to serve: on a port of its own choosing, or on the Unix socket `uds`."""

    def __init__(self, loop: LoopUnderTest, app: str, *options: str, uds: str | None = None) -> None:
        name = "asyncio" if loop.name == "asyncio" else loop.factory
        where = ("--host", "127.0.0.1", "--port", "0") if uds is None else ("--uds", uds)
        super().__init__(
            [
                *(sys.executable, "-m", "uvicorn", app, *where),
                *("--loop", name, "--no-use-colors", "--no-access-log"),
                # On a busy machine a test may look away from a connection for longer than the usual five seconds.
                *("--timeout-keep-alive", str(int(DEADLINE)), *options),
            ]
        )
        try:
            ready = self.wait_for(r"Uvicorn running on (?:(https?)://127\.0\.0\.1:(\d+)|unix socket)")
        except BaseException:
            self.kill()
            raise
        self.port = int(ready[2] or 0)
        """The TCP port; 0 on a Unix socket."""
        self.url = f"{ready[1]}://127.0.0.1:{self.port}"


class UvicornServers:
    """Servers that several tests share: started when first asked for, stopped at the end of the session."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, ...], Uvicorn] = {}

    def get(self, loop: LoopUnderTest, app: str, *options: str) -> Uvicorn:
        key = (loop.name, app, *options)
        if key not in self._servers:
            self._servers[key] = Uvicorn(loop, app, *options)
        return self._servers[key]

    def stop(self) -> None:
        """Stop them all.

        Raises:
            AssertionError: one printed a traceback, or would not end.
        """
        for server in self._servers.values():
            server.send_signal(signal.SIGTERM)
        with contextlib.ExitStack() as stack:
            for server in self._servers.values():
                stack.callback(server.stop)


@contextlib.contextmanager
def stopping(server: ServerProcess) -> Iterator[ServerProcess]:
    """Give `server` to a test that stops it itself, and see to it that it is gone afterwards."""
    try:
        yield server
    finally:
        server.kill()


def wait_until_listening(server: ServerProcess, port: int) -> None:
    """Wait for workers that print nothing when they begin to listen on a TCP port of 127.0.0.1.

    Raises:
        AssertionError: `DEADLINE` passed before; what the server did print is shown.
    """
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), DEADLINE).close()
            return
    raise AssertionError(f"nobody listens; printed:\n{server.output}")


def on_free_port(start: Callable[[int], T]) -> T:
    """Call `start` with a port that was free a moment ago, again with another where it is not free any more.

    Raises:
        AssertionError: what `start` raised at the last of several attempts.
    """
    for attempts_left in (4, 3, 2, 1, 0):
        try:
            return start(free_port())
        except AssertionError as error:
            if not attempts_left or "in use" not in str(error):
                raise
    raise AssertionError("unreachable")
