"""System calls that fail, each in turn, with checksummed data under way.

`strace` makes them fail in a process of its own (`faulty.py`), from the moment when that has imported everything. Which
call of the kind fails first, and how often after it, is drawn from a seed; so is the data. A failure tells its seed, and
HOTLOOP_FAULT_SEED replays it. HOTLOOP_FAULT_ROUNDS says how many seeds each case is tried with (1).
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from faulty import CLIENTS, DATAGRAMS, SIZE, digest, payload

from harness import PATIENCE, WRITELINES_IS_WHOLE, receive_all

PROGRAM = Path(__file__).with_name("faulty.py")

#: The system calls of each kind. Which of them a loop uses is its own business.
CALLS = {
    "accept": "accept,accept4",
    "connect": "connect",
    "receive": "recvfrom,recvmsg,recvmmsg",
    "send": "sendto,sendmsg,sendmmsg,writev",
    "read": "read",
    "write": "write,writev",
    "watch": "epoll_ctl",
    "wait": "epoll_wait,epoll_pwait,epoll_pwait2,io_uring_enter",
    "enter": "io_uring_enter",
    "ring": "io_uring_setup",
    "register": "io_uring_register",
    "socket": "socket,socketpair",
    "epoll": "epoll_create1",
    "eventfd": "eventfd2",
    "pipe": "pipe2",
    # What subprocess falls back to when vfork fails is a clone; threads are clone3.
    "fork": "clone,?vfork",
    "pidfd": "pidfd_open",
    "reap": "waitid,wait4",
}


@dataclass(frozen=True)
class Case:
    """A call that fails in a scenario, and what must come of it."""

    scenario: str
    call: str
    error: str
    #: The error surfaces. Otherwise nobody must notice anything.
    fatal: bool = False
    #: Fails once; otherwise again and again.
    once: bool = False
    #: Only the first call of the kind fails.
    first: bool = False
    #: Which loops need not use this call here.
    unused_by: tuple[str, ...] = ()
    #: Why stock asyncio ends otherwise, where that is its own defect.
    stock_defect: str = ""
    #: How many reports the exception handler gets.
    reports: int = 0

    def __str__(self) -> str:
        return f"{self.scenario}-{self.call}-{self.error}"


def cases() -> Iterator[Case]:
    """Each call with each error that it can give."""
    for scenario in ["protocol", "buffered", "streams", "sock"]:
        for call in ["receive", "send"]:
            for error in ["EINTR", "EAGAIN"]:
                yield Case(scenario, call, error)
            for error in ["ECONNRESET", "ENOBUFS"] + ["EPIPE"] * (call == "send"):
                defect = UNWRITTEN if scenario in ("protocol", "buffered") else ""
                yield Case(scenario, call, error, fatal=True, once=True, stock_defect=defect)
        yield Case(scenario, "wait", "EINTR")
    # What the kernel says when it is short of memory, and when completions are to be taken first. Nothing of `sock_*` is
    # a ring's.
    for scenario in ["protocol", "buffered", "streams"]:
        for error in ["EAGAIN", "EBUSY"]:
            yield Case(scenario, "enter", error, unused_by=("asyncio", "selector"))
    for scenario in ["protocol", "sock"]:
        for error in ["ECONNRESET", "ENOBUFS", "ECONNREFUSED"]:
            yield Case(scenario, "connect", error, fatal=True, first=True)
    for error in ["EMFILE", "ENFILE", "ENOBUFS"]:
        yield Case("protocol", "socket", error, fatal=True, first=True)
    for error in ["EINTR", "EAGAIN", "ECONNABORTED"]:
        yield Case("serve", "accept", error)
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"]:
        yield Case("serve", "accept", error, once=True, reports=1)
    for call in ["read", "write"]:
        for error in ["EINTR", "EAGAIN"]:
            yield Case("pipes", call, error)
    yield Case("pipes", "write", "EPIPE", fatal=True, once=True)
    for call in ["receive", "send"]:
        for error in ["EINTR", "EAGAIN"]:
            yield Case("datagrams", call, error)
        for error in ["ECONNREFUSED", "ENOBUFS"]:
            yield Case("datagrams", call, error, fatal=True, once=True)
    for error in ["EMFILE", "ENFILE"]:
        yield Case("spawn", "pipe", error, fatal=True, first=True)
    for error in ["EAGAIN", "ENOMEM"]:
        yield Case("spawn", "fork", error, fatal=True, first=True)
    yield Case("spawn", "reap", "EINTR", first=True, unused_by=("asyncio",))
    for error in ["EMFILE", "ENOMEM", "EPERM"]:
        yield Case("spawn", "pidfd", error, first=True, unused_by=("asyncio",), stock_defect=UNSPAWNED)
    for error in ["ENOMEM", "ENOSPC"]:
        yield Case("protocol", "watch", error, fatal=True, first=True, stock_defect=UNREAD)
        yield Case("sock", "watch", error, fatal=True, first=True)
    for call in ["epoll", "socket"]:
        yield Case("create", call, "EMFILE", fatal=True, first=True)
    for error in ["EMFILE", "ENOMEM", "EPERM", "ENOSYS"]:
        yield Case("create", "ring", error, fatal=True, first=True, unused_by=("asyncio", "selector"))
    yield Case("create", "register", "ENOMEM", fatal=True, first=True, unused_by=("asyncio", "selector"))
    yield Case("create", "eventfd", "EMFILE", fatal=True, first=True, unused_by=("asyncio",))
    yield Case("threads", "write", "EINTR", unused_by=("asyncio",))
    yield Case("threads", "wait", "EINTR")


#: epoll_ctl fails in `add_reader`, which the transport has scheduled: it is reported, and nothing reads from then on.
UNREAD = "a transport whose socket cannot be watched never hears of it, and waits for ever"

#: From Python 3.14 on the children's descriptor is opened behind the spawning, and nobody waits for the child without it.
UNSPAWNED = "a child of which there is no descriptor is waited for without end" if sys.version_info >= (3, 14) else ""

#: The programs with transports call it once more when their connection is lost.
UNWRITTEN = "" if WRITELINES_IS_WHOLE else "writelines to a connection that is lost ends in an AttributeError"

#: What the kernel does for a stream without being called for it once more.
DONE_BY_RING = {"receive", "send", "watch"}

CASES = list(cases())
ROUNDS = int(os.environ.get("HOTLOOP_FAULT_ROUNDS", "1"))
# The same ones in every run, so that a failure is that of the change under test; more rounds go on to others.
SEEDS = [int(seed) for seed in os.environ.get("HOTLOOP_FAULT_SEED", "").split()] or list(range(1, ROUNDS + 1))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_system_call_that_fails_loses_nothing(no_leaks, loop_name, case):
    refused = tracing_is_refused()
    if refused:
        pytest.skip(refused)
    if loop_name == "asyncio" and case.stock_defect:
        pytest.skip(f"stock asyncio's own defect: {case.stock_defect}")
    for seed in SEEDS:
        try:
            attempted = attempt(case, seed, loop_name)
            if not attempted[-1] and not case.first:
                # How often a call is made is the kernel's and the clock's to say; the first time is sure to come.
                attempted = attempt(replace(case, first=True), seed, loop_name)
            check(case, seed, loop_name, *attempted)
        except AssertionError as error:
            raise AssertionError(f"with HOTLOOP_FAULT_SEED={seed}: {error}") from error


@cache
def tracing_is_refused() -> str:
    """Why no system call can be made to fail here, if so."""
    if shutil.which("strace") is None:
        return "strace is not installed (scripts/services.sh does so)"
    tried = subprocess.run(["strace", "-e", "inject=getppid:error=EPERM", "true"], capture_output=True, text=True)
    return f"strace cannot trace here: {tried.stderr}" if tried.returncode else ""


def check(case: Case, seed: int, loop_name: str, outcome: dict[str, Any], arrived: bytes, failed: int) -> None:
    """Hold an outcome to what is promised."""
    if not failed:
        by_ring = loop_name == "proactor" and case.call in DONE_BY_RING
        assert by_ring or loop_name in case.unused_by, f"the call was not made: {outcome}"
    assert (outcome["leaked"], outcome["closed"]) == ({}, {}), outcome
    expected = [type(OSError(getattr(errno, case.error), "")).__name__, getattr(errno, case.error)]
    assert outcome["error"] == (expected if case.fatal and failed else None), outcome
    assert len(outcome["unhandled"]) == case.reports * bool(failed), outcome
    whole = outcome["error"] is None
    match case.scenario:
        case "protocol" | "buffered" | "streams" | "sock":
            # Everything that arrived is the beginning of what was sent, and what came back the beginning of that.
            assert payload(seed).startswith(arrived), "lost or doubled on the way out"
            assert digest(arrived[: outcome["count"]]) == outcome["received"], "lost or doubled on the way in"
            assert not whole or (len(arrived), outcome["count"]) == (SIZE, SIZE), outcome
        case "datagrams":
            # A datagram whose send fails is told and gone; the transport goes on, and every other one is there.
            assert outcome["errors"] == (0 if whole else 1), outcome
            assert outcome["count"] == DATAGRAMS - (case.call == "send" and not whole), outcome
            assert outcome["echoed"], outcome
        case "serve":
            assert outcome["served"] == CLIENTS
        case "pipes":
            assert outcome["prefix"], outcome
            assert outcome["whole"] or not whole, outcome
        case "spawn":
            assert outcome["echoed"] == [True] * (2 - outcome["errors"]), outcome
            assert outcome["errors"] == (0 if whole else 1), outcome
        case "create":
            assert outcome["errors"] == (0 if whole else 1), outcome
        case "threads":
            assert outcome["called"] == 200


def attempt(case: Case, seed: int, loop_name: str) -> tuple[dict[str, Any], bytes, int]:
    """Run the program with the call failing: its outcome, what its peer received, how often the call failed."""
    rng = random.Random(seed + 2)
    first = 1 if case.first else rng.randint(1, 3)
    when = f"{first}" if case.first or case.once else f"{first}+{rng.randint(2, 4)}"
    inject = f"inject={CALLS[case.call]}:error={case.error}:when={when}"
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if case.scenario == "datagrams" else socket.SOCK_STREAM)
    listener.settimeout(PATIENCE)
    listener.bind(("127.0.0.1", 0))
    if case.scenario != "datagrams":
        listener.listen()
    #: What the peer was sent, and what it has to complain of.
    arriving: list[bytes] = []
    faults: list[str] = []
    peer = threading.Thread(target=PEERS.get(case.scenario, echo), args=(listener, seed, arriving, faults), daemon=True)
    serving = case.scenario == "serve"
    with listener, tempfile.TemporaryFile() as result, tempfile.NamedTemporaryFile("r") as trace:
        address = listener.fileno() if serving else listener.getsockname()[1]
        program = subprocess.Popen(
            [
                sys.executable,
                "-W",
                "error",
                PROGRAM,
                loop_name,
                case.scenario,
                str(seed),
                str(result.fileno()),
                str(address),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[result.fileno(), listener.fileno()],
        )
        with program:
            tracer = None
            try:
                assert program.stdout.readline() == "ready\n", program.communicate()[1]
                # Threads too where they are what makes the call; otherwise children would be traced with them.
                follow = ["-f"] * (case.scenario == "threads")
                command = ["strace", *follow, "-o", trace.name, "-e", inject, "-e", f"trace={CALLS[case.call]}"]
                tracer = subprocess.Popen([*command, "-p", str(program.pid)], stderr=subprocess.PIPE, text=True)
                attached = tracer.stderr.readline()
                assert "attached" in attached, attached
                peer.start()
                try:
                    _, said = program.communicate("go\n", timeout=PATIENCE)
                except subprocess.TimeoutExpired:
                    program.send_signal(6)
                    raise AssertionError(f"hangs with {inject}: {program.communicate()[1]}") from None
            finally:
                program.kill()
                if tracer is not None:
                    tracer.communicate(timeout=PATIENCE)
        assert program.returncode == 0, f"{inject}: {said}"
        if case.scenario == "datagrams":
            listener.sendto(b"", listener.getsockname())
        elif not serving:
            listener.shutdown(socket.SHUT_RDWR)  # nobody may have connected
        peer.join(PATIENCE)
        assert not peer.is_alive(), f"the peer hangs with {inject}"
        assert faults == []
        result.seek(0)
        outcome = json.loads(result.read()) | {"inject": inject, "said": said}
        failed = len(re.findall(r"\(INJECTED\)", trace.read()))
    return outcome, b"".join(arriving), failed


def echo(listener: socket.socket, seed: int, arriving: list[bytes], faults: list[str]) -> None:
    """Send one connection back what it sends, and keep that."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return
    with connection:
        connection.settimeout(PATIENCE)
        try:
            while data := connection.recv(1 << 16):
                arriving.append(data)
                connection.sendall(data)
        except OSError:
            pass  # the program's end is gone, which it tells itself


def send_back(endpoint: socket.socket, seed: int, arriving: list[bytes], faults: list[str]) -> None:
    """Send datagrams back until an empty one comes."""
    while True:
        data, address = endpoint.recvfrom(1 << 16)
        if not data:
            return
        endpoint.sendto(data, address)


def ask(listener: socket.socket, seed: int, arriving: list[bytes], faults: list[str]) -> None:
    """Be the clients of a server that sends back what it is sent."""
    for number in range(CLIENTS):
        data = random.Random(seed + number).randbytes(30_000)
        try:
            with socket.create_connection(listener.getsockname(), PATIENCE) as client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                if receive_all(client) != data:
                    faults.append(f"client {number} got something else back")
        except OSError as error:
            faults.append(f"client {number}: {error}")


#: What is at the other end of a scenario, where it is not one connection that sends back what it is sent.
PEERS = {"serve": ask, "datagrams": send_back}
