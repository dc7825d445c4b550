"""Differences of addresses, connecting and accepting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import sys
import warnings
from typing import Any

from differences.entry import Entry, Section, probe
from harness import PATIENCE, Loop, attach, descriptors, run, tcp_pair, turns


@probe("a look-up of `127.0.0.1` goes through the executor")
def literal(loop: Loop) -> bool:
    run(loop, loop.getaddrinfo("127.0.0.1", 80))
    return loop._default_executor is not None  # type: ignore[attr-defined]


@probe("`TCP_NODELAY` of a socket whose `proto` is 0")
def nodelay(loop: Loop) -> int:
    near, far = tcp_pair(proto=0)
    transport, _ = attach(loop, near)
    answer = near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    far.close()
    return answer


class Server:
    """A server with as many clients as wait for it, and what was reported to the loop's exception handler."""

    def __init__(self, loop: Loop, factory: Any = asyncio.Protocol, backlog: int = 100, clients: int = 1) -> None:
        self.reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.reports.append(context))
        self.server = run(loop, loop.create_server(factory, "127.0.0.1", 0, backlog=backlog))
        self.address = self.server.sockets[0].getsockname()
        self.clients = [socket.create_connection(self.address, PATIENCE) for _ in range(clients)]


def failing() -> Any:
    """A protocol factory that raises."""
    raise ZeroDivisionError


@probe("reports of a factory that raises")
def failing_factory(loop: Loop) -> int:
    server = Server(loop, failing)
    turns(loop, 5)
    return len(server.reports)


@probe("warnings that its socket was left to the collector")
def left_to_the_collector(loop: Loop) -> int:
    calls: list[bool] = []

    def fail() -> None:
        calls.append(True)
        raise ZeroDivisionError

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        server = Server(loop, fail)
        while not calls:
            turns(loop)
        turns(loop, 3)
        del server.reports[:]
        gc.collect()
    return sum("unclosed <socket" in str(warning.message) for warning in caught)


@probe("reports when descriptors run out, with a backlog of 20")
def out_of_descriptors(loop: Loop) -> str:
    server = Server(loop, backlog=20, clients=0)
    client = socket.socket()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 1, hard))
    with contextlib.suppress(OSError):
        while True:
            os.dup(0)
    client.connect(server.address)
    while not server.reports:
        turns(loop)
    return "20 or more" if len(server.reports) >= 20 else str(len(server.reports))


@probe("connections accepted in a turn, of 20 that wait")
def accepted_in_a_turn(loop: Loop) -> int:
    counts: list[int] = []
    server = Server(loop, lambda: counts.append(1) or asyncio.Protocol(), clients=20)
    most = 0
    while len(counts) < len(server.clients):
        before = len(counts)
        turns(loop)
        most = max(most, len(counts) - before)
    return most


@probe("`asyncio.current_task()` in a protocol factory")
def task_of_a_factory(loop: Loop) -> str:
    tasks: list[Any] = []
    server = Server(loop, lambda: tasks.append(asyncio.current_task()) or asyncio.Protocol())
    while not tasks:
        turns(loop)
    del server
    return "`None`" if tasks == [None] else "a task"


@probe("events of `socket.connect` that an audit hook hears of a connection")
def audited(loop: Loop) -> int:
    events: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.addaudithook(lambda event, _: events.append(event))
        run(loop, loop.create_connection(asyncio.Protocol, *listener.getsockname()))
    return events.count("socket.connect")


ADDRESSES = Section(
    "Address literals",
    Entry(
        """
        `getaddrinfo("127.0.0.1", 80)` and its kin answer at once, without a trip through the executor: no thread is
        started and a custom default executor sees nothing of it. The answer is that of the C library, entry by entry, as
        far as it is certain; names, service names, flags other than `AI_PASSIVE`, `AI_NUMERICHOST` and `AI_NUMERICSERV`,
        C libraries other than glibc, all calls in debug mode, and all calls while `socket.getaddrinfo` is replaced take
        asyncio's way.
        """,
        literal,
        "test_getaddrinfo.py::test_agrees_with_the_socket_module",
        "test_import.py::test_what_was_replaced_before_the_import_is_called",
    ),
)

NODELAY = Section(
    "TCP_NODELAY",
    Entry(
        """
        asyncio sets `TCP_NODELAY` where `sock.proto` is `IPPROTO_TCP`. Most sockets made by hand have `proto` 0, and
        those accepted from such a listener too; hotloop goes by family and type, and sets it on these as well.
        """,
        nodelay,
        "test_stream_transport.py::test_tcp_connections_do_not_wait_for_acknowledgements",
    ),
)

ACCEPTING = Section(
    "Accepting",
    Entry(
        """
        A protocol factory that raises for an accepted connection is reported to the exception handler always, not in
        debug mode only, and its connection is closed at once, not when it is collected, of which Python warns.
        """,
        failing_factory,
        left_to_the_collector,
        "test_server.py::test_a_factory_that_raises_does_not_end_the_server",
    ),
    Entry(
        """
        So is a connection that is accepted in the turn in which its server is closed. asyncio leaves it open until it is
        collected.
        """,
        "test_server.py::test_a_connection_accepted_in_the_turn_in_which_its_server_ends_is_closed",
    ),
    Entry(
        """
        When descriptors run out while accepting, the listener rests for a second after one report; asyncio tries and
        reports as many times as the backlog is long. A server that is closed during the rest stays closed.
        """,
        out_of_descriptors,
        "test_server.py::test_a_server_out_of_descriptors_rests_and_recovers",
        "test_server.py::test_a_server_closed_while_it_rests_stays_closed",
    ),
    Entry(
        """
        One turn accepts at most 8 connections of a listener, where asyncio accepts as many as the backlog is long: so
        connections that are there already are served in between, and other processes on the same socket have their
        share.
        """,
        accepted_in_a_turn,
        "test_server.py::test_a_burst_is_accepted_while_a_connection_is_served",
    ),
    Entry(
        """
        Accepted connections have no task each, so `asyncio.current_task()` is `None` in a protocol factory and
        `asyncio.all_tasks()` shows none of them; but in debug mode and with a task factory they have.
        """,
        task_of_a_factory,
        "test_accept.py::test_a_task_factory_sees_a_task_for_each_connection",
    ),
)

CONNECTING = Section(
    "Connecting",
    Entry(
        """
        Connections to addresses and to Unix paths without further options are made without a Python socket, so
        `sys.addaudithook` hears nothing of them. A patched `socket.socket` is used as on asyncio, and so are its
        `connect` and its `accept`, where these are.
        """,
        audited,
        "test_connect.py::test_a_replaced_socket_class_is_used",
        "test_connect.py::test_a_replaced_connect_of_sockets_is_called",
        "test_accept.py::test_a_replaced_accept_of_sockets_is_called",
    ),
    Entry(
        """
        Where a protocol factory raises, the connection is closed at once. asyncio before 3.15 leaves it to the collector.
        """,
        "test_connect.py::test_a_factory_that_raises_closes_the_connection",
    ),
)
