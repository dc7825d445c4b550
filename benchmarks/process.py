"""Servers, the load generator and rows as processes of their own, one core each."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Seconds that a server may take to start on a busy machine.
START_TIMEOUT = 60.0
# Seconds behind which a row in a process of its own hangs, rather than being slow.
FIGURE_TIMEOUT = 180.0
# Seconds that the load generator may take beside its warm-up and its measured time: to connect, on a busy machine.
LOAD_TIMEOUT = 60.0


class Failure(Exception):
    """A loop has no figure. The message says why."""


class NotServing(Failure):
    """A server did not start, or does not accept."""


class WrongAnswer(Failure):
    """A server's answer was not the right one, or none came. The message is the load generator's."""


class NoFigure(Failure):
    """A row in a process of its own crashed, or hung."""


@dataclass(frozen=True)
class Load:
    """What the load generator found: its JSON object, see `hotloop-load --help`."""

    requests: int
    seconds: float
    requests_per_second: float
    p50_us: float
    p99_us: float
    server_cpu_us_per_request: float
    errors: int
    # Pairs of a percentile and the latency that so many requests had at most, in microseconds.
    percentiles_us: tuple[tuple[float, float], ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.requests_per_second:,.0f} requests/s, p99 {self.p99_us / 1000:.1f} ms, "
            f"{self.server_cpu_us_per_request:.1f} µs of server CPU a request"
        )


def binary(name: str) -> Path:
    """A built binary of `crates/hotloop-load`. Ends this process, with a message, where it is not built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parent.parent / "target"))
    binary = target / "release" / name
    if not binary.exists():
        sys.exit(f"{binary} is not built: run `make load`")
    return binary


def cores() -> tuple[int, int]:
    """One core for the server and one for the load; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process, and with it each process that it starts within, runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter with arguments."""
    return [sys.executable, *arguments]


def figure(command: list[str], timeout: float = FIGURE_TIMEOUT) -> float:
    """Runs a command on the server's core, and answers the number that it prints.

    Raises NoFigure when it fails or takes longer than `timeout` seconds; what it has started is ended with it.
    """
    return float(output(command, timeout))


def output(command: list[str], timeout: float) -> str:
    """Runs a command on the server's core, and answers what it prints. Raises NoFigure as `figure` does."""
    with tempfile.TemporaryFile("w+") as errors:
        with pinned(cores()[0]):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise NoFigure(f"no figure within {timeout:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if process.returncode != 0:
            raise NoFigure(how_it_ended(process.returncode, errors))
        return printed


def how_it_ended(status: int, errors: IO[str]) -> str:
    """A process's exit status and the last line of what it wrote on standard error, as one line."""
    ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    errors.seek(0)
    lines = [line for line in errors.read().splitlines() if line.strip()]
    return f"{ended}: {lines[-1].strip()[:200]}" if lines else ended


@contextlib.contextmanager
def server(
    command: list[str], port: int | None = None, environment: dict[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Runs a command on the server's core, with this environment or ours, and gives its process id and its port.

    A server that is not told its `port` prints it on its first line, and serves from then on. One that is told is
    waited for until it accepts.
    Raises NotServing when that does not come, or when the server ends while it is in use.
    """
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory() as directory:
        with pinned(cores()[0]):
            process = subprocess.Popen(
                command,
                # What it leaves behind when it is killed goes with it.
                env={**(environment or os.environ), "TMPDIR": directory},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if port is None else None,
                stderr=errors,
                text=True,
            )
        try:
            if port is None:
                port = announced(process, errors)
            else:
                wait_until_it_accepts(process, port, errors)
            try:
                yield process.pid, port
            except Failure as error:
                if process.poll() is None:
                    raise
                raise NotServing(f"{error}; the server {how_it_ended(process.returncode, errors)}") from error
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def announced(process: subprocess.Popen[str], errors: IO[str]) -> int:
    """The port that a server prints. Raises NotServing when none comes."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_TIMEOUT):
            raise NotServing(f"the server did not start within {START_TIMEOUT:g} s")
    line = process.stdout.readline()
    if not line:
        raise NotServing(f"the server did not start, it {how_it_ended(process.wait(START_TIMEOUT), errors)}")
    return int(line)


def wait_until_it_accepts(process: subprocess.Popen[str], port: int, errors: IO[str]) -> None:
    """Tries to connect until that works. Raises NotServing when the process ends, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotServing(f"the server ended at once, it {how_it_ended(process.returncode, errors)}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT).close()
            return
        time.sleep(0.02)
    raise NotServing(f"the server did not accept on port {port} within {START_TIMEOUT:g} s")


def wait_until_it_ends(pid: int, timeout: float) -> None:
    """Waits for a process that was told to end. Raises NotServing when it does not within so many seconds."""
    with os.fdopen(os.pidfd_open(pid)) as ended, selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        if not selector.select(timeout):
            raise NotServing(f"the server did not end within {timeout:g} s")


def times(pid: int) -> tuple[int, int]:
    """What a process has spent in user space and in the kernel, in ticks of the clock (proc(5): utime and stime)."""
    # The name of the program, in parentheses, may have spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def load(arguments: list[str], *, pid: int, duration: float) -> Load:
    """Runs the load generator on the load's core. Raises WrongAnswer when an answer was wrong, or it does not end.

    Where that core is its own it never sleeps. Else the server pays for waking it, which on a virtual machine is an
    interrupt from core to core through the hypervisor: several times what an echo costs, and not alike for all loops,
    since those pay often whose load is often idle.
    """
    servers_core, core = cores()
    command = [str(binary("hotloop-load")), *arguments, "--pid", str(pid), "--duration", str(duration)]
    if core != servers_core:
        command.append("--busy-poll")
    with pinned(core):
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=duration + LOAD_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise WrongAnswer(f"not all connections were accepted within {LOAD_TIMEOUT:g} s") from None
    if done.returncode != 0:
        raise WrongAnswer(done.stderr.strip() or f"the load generator ended with status {done.returncode}")
    found = json.loads(done.stdout)
    found["percentiles_us"] = tuple((percentile, latency) for percentile, latency in found["percentiles_us"])
    return Load(**found)
