"""Servers and the load generator as processes of their own, one core each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Seconds that a server may take to start on a busy machine.
START_TIMEOUT = 30.0


class NotServing(Exception):
    """A server did not start, or does not accept."""


class WrongAnswer(Exception):
    """A server's answer was not the right one, or none came. The message is the load generator's."""


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


@contextlib.contextmanager
def server(command: list[str], port: int | None = None) -> Iterator[tuple[int, int]]:
    """Runs a command on the server's core and gives its process id and its port.

    A server that is not told its `port` prints it on its first line, and serves from then on. One that is told is
    waited for until it accepts.
    Raises NotServing when that does not come.
    """
    with pinned(cores()[0]):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if port is None else None,
            text=True,
        )
    try:
        if port is None:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise NotServing(f"the server did not start: {' '.join(command)}")
            port = int(line)
        else:
            wait_until_it_accepts(process, port)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until_it_accepts(process: subprocess.Popen[str], port: int) -> None:
    """Tries to connect until that works. Raises NotServing when the process ends, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotServing(f"the server ended at once, with status {process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.02)
    raise NotServing(f"the server did not accept on port {port} within {START_TIMEOUT} s")


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def load(arguments: list[str], *, pid: int, duration: float) -> Load:
    """Runs the load generator on the load's core. Raises WrongAnswer when an answer was wrong."""
    command = [str(binary("hotloop-load")), *arguments, "--pid", str(pid), "--duration", str(duration)]
    with pinned(cores()[1]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WrongAnswer(done.stderr.strip() or f"the load generator ended with status {done.returncode}")
    return Load(**json.loads(done.stdout))
