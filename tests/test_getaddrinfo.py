"""getaddrinfo and getnameinfo: what the socket module answers, on every combination."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading

import pytest

from harness import PATIENCE, Recorder, close, python, run, same_as_stock, turns

HOSTS = [
    None, "", "127.0.0.1", b"127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "127.0.0.256", " 127.0.0.1",
    "127.0.0.1 ", "127.0.0.1.", "127.0.0.01", "00.0.0.0", "0.0.0.0", "255.255.255.255", "<broadcast>", "::1", b"::1", "::", "::ffff:127.0.0.1",
    "fe80::1%lo", "fe80::1%1", "fe80::1%nosuchdevice", "fe80::1%", "::1%lo", "::1%0", "[::1]", "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7:8:9", "12345::", "localhost", b"localhost", "\0", "a\0b", "127.0.0.1\0", 5, bytearray(b"127.0.0.1"),
    "\u0661\u0662\u0667.0.0.1", "x" * 300, "\udcff",
]  # fmt: skip
PORTS = [
    None, 0, 80, "80", b"80", "http", b"http", "", b"", -1, 65535, 65536, 70000, 2**40, "70000", "-1", " 80", "80 ",
    "+80", "0x50", "no such service", 1.5, True, "\0", "domain", "tftp",
]  # fmt: skip
KINDS = [
    (0, 0, 0), (socket.AF_INET, 0, 0), (socket.AF_INET6, 0, 0), (0, socket.SOCK_STREAM, 0), (0, socket.SOCK_DGRAM, 0),
    (0, socket.SOCK_RAW, 0), (0, 0, socket.IPPROTO_TCP), (0, 0, socket.IPPROTO_UDP),
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    (0, socket.SOCK_STREAM, socket.IPPROTO_UDP), (0, socket.SOCK_DGRAM, socket.IPPROTO_TCP),
    (socket.AF_UNIX, socket.SOCK_STREAM, 0), (99, 0, 0), (0, 99, 0), (0, 0, 99), (0, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    (0, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0), (0, socket.SOCK_SEQPACKET, 0),
]  # fmt: skip
FLAGS = [
    0, socket.AI_PASSIVE, socket.AI_NUMERICHOST, socket.AI_NUMERICSERV, socket.AI_CANONNAME,
    socket.AI_NUMERICHOST | socket.AI_NUMERICSERV, socket.AI_PASSIVE | socket.AI_NUMERICSERV, socket.AI_V4MAPPED,
    socket.AI_V4MAPPED | socket.AI_ALL, socket.AI_ADDRCONFIG, socket.AI_NUMERICHOST | socket.AI_CANONNAME, 1 << 20,
]  # fmt: skip


def grid():
    """Ports, kinds and flags: a part in which each value meets many others, or all of it with HOTLOOP_WHOLE_GRID."""
    if os.environ.get("HOTLOOP_WHOLE_GRID"):
        return itertools.product(PORTS, KINDS, FLAGS)
    return itertools.chain(
        itertools.product(PORTS, KINDS, [0]),
        itertools.product([80, "http", None], KINDS, FLAGS),
        itertools.product(PORTS, KINDS[:4], [socket.AI_NUMERICSERV, socket.AI_PASSIVE]),
    )


def answer_of_the_module(*args, **options):
    """What `socket.getaddrinfo` returns, or type and arguments of what it raises."""
    try:
        return socket.getaddrinfo(*args, **options)
    except Exception as error:
        return type(error), error.args


async def answer_of_the_loop(loop, *args, **options):
    """What the loop's getaddrinfo returns, or type and arguments of what it raises."""
    try:
        return await loop.getaddrinfo(*args, **options)
    except Exception as error:
        return type(error), error.args


def looks_up_a_name(host, flags):
    """Whether this combination would ask a name server: such a question leaves the machine."""
    if host in ("localhost", b"localhost") or flags & socket.AI_NUMERICHOST or not isinstance(host, (str, bytes)):
        return False
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return True
    except (UnicodeError, ValueError, TypeError):
        return False
    return False


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
def test_agrees_with_the_socket_module(loop, host):
    """uvloop#539, zuvloop#14, zuvloop#48, asyncio#348: hosts, ports, families, types, protocols, flags."""
    combinations = [(port, *kind, flags) for port, kind, flags in grid() if not looks_up_a_name(host, flags)] or [
        (80, 0, 0, 0, socket.AI_NUMERICHOST)
    ]
    if host in ("localhost", b"localhost"):
        # The resolver's own work, slow in some combinations; that the loop passes them on is shown by a part.
        combinations = combinations[: len(KINDS) * 3]

    async def compare():
        differing = []
        for port, family, kind, proto, flags in combinations:
            options = {"family": family, "type": kind, "proto": proto, "flags": flags}
            expected = answer_of_the_module(host, port, **options)
            answer = await answer_of_the_loop(loop, host, port, **options)
            if answer != expected:
                differing.append((port, options, answer, expected))
        return differing

    differing = loop.run_until_complete(compare())
    assert differing == [], f"{len(differing)} of {len(combinations)} differ"


def test_keeps_the_zone_of_an_address(loop):
    """uvloop#539, anyio#554, aiohttp#4554"""
    index = socket.if_nametoindex("lo")
    found = run(loop, loop.getaddrinfo("fe80::1%lo", 80, type=socket.SOCK_STREAM))
    assert found == [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 80, 0, index))]
    found = run(loop, loop.getaddrinfo(f"fe80::1%{index}", 80, type=socket.SOCK_STREAM))
    assert found[0][4] == ("fe80::1", 80, 0, index)


def test_the_types_of_the_answer_are_those_of_the_module(loop):
    for host in ("127.0.0.1", "::1"):
        (answer,) = run(loop, loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
        assert isinstance(answer[0], socket.AddressFamily)
        assert isinstance(answer[1], socket.SocketKind)
        assert repr(answer) == repr(socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)[0])


def test_errors_are_those_of_the_platform(loop):
    """zuvloop#14"""
    with pytest.raises(socket.gaierror) as caught:
        run(loop, loop.getaddrinfo("nothing", 80, flags=socket.AI_NUMERICHOST))
    assert caught.value.errno == socket.EAI_NONAME
    with pytest.raises(socket.gaierror) as expected:
        socket.getaddrinfo("nothing", 80, flags=socket.AI_NUMERICHOST)
    assert caught.value.args == expected.value.args


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("::1", 80), ("::1", 80, 0, 0), ("127.0.0.1", 0), ("127.0.0.1", 70000)]
)
@pytest.mark.parametrize(
    "flags", [0, socket.NI_NUMERICHOST, socket.NI_NUMERICSERV, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV]
)
def test_getnameinfo_agrees_with_the_socket_module(loop, address, flags):
    """zuvloop#20"""
    flags |= socket.NI_NUMERICHOST

    def expected():
        try:
            return socket.getnameinfo(address, flags)
        except Exception as error:
            return type(error), error.args

    async def answer():
        try:
            return await loop.getnameinfo(address, flags)
        except Exception as error:
            return type(error), error.args

    assert run(loop, answer()) == expected()


def test_a_replaced_getaddrinfo_of_the_socket_module_is_called(loop, monkeypatch):
    """Tests and proxies replace it, and stock asyncio looks it up at each call."""
    calls = []

    def replaced(host, port, *args, **options):
        calls.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", replaced)
    for host in ("name.invalid", "127.0.0.2"):
        assert run(loop, loop.getaddrinfo(host, 1))[0][4] == ("127.0.0.1", 1)
    assert calls == ["name.invalid", "127.0.0.2"]


def test_a_name_is_looked_up_off_the_loops_thread(loop, monkeypatch):
    threads = []

    def replaced(*args, **options):
        threads.append(threading.current_thread())
        return []

    monkeypatch.setattr(socket, "getaddrinfo", replaced)
    assert run(loop, loop.getaddrinfo("name.invalid", 1)) == []
    assert threads[0] is not threading.current_thread()


def test_a_slow_lookup_does_not_hold_the_loop_up(loop, monkeypatch):
    asked, release = threading.Event(), threading.Event()

    def replaced(*args, **options):
        asked.set()
        assert release.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", replaced)

    async def look():
        looking = asyncio.ensure_future(loop.getaddrinfo("name.invalid", 1))
        assert await loop.run_in_executor(None, asked.wait, PATIENCE)
        assert not looking.done()
        release.set()
        return await looking

    assert run(loop, look()) == []


def test_closing_with_a_lookup_in_flight_neither_hangs_nor_crashes(loop_name):
    """zuvloop#60, uvloop#495"""
    ended = python(
        """
        import asyncio, gc, socket, threading

        asked, release = threading.Event(), threading.Event()

        def slow(*args, **options):
            asked.set()
            release.wait(20)
            return []

        socket.getaddrinfo = slow
        for _ in range(5):
            asked.clear()
            release.clear()
            loop = new_loop()
            task = loop.create_task(loop.getaddrinfo("name.invalid", 1))
            loop.call_soon(loop.stop)
            loop.run_forever()
            asked.wait(20)
            loop.set_exception_handler(lambda *_: None)
            task.cancel()
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.close()
            gc.collect()
            release.set()
            del loop, task
            gc.collect()
        print("end")
        """,
        factory=loop_name,
    )
    assert (ended.returncode, ended.stdout) == (0, "end\n")


def test_a_connection_to_an_address_with_a_zone_keeps_it(loop, no_leaks, monkeypatch):
    """uvloop#539"""
    seen = []

    async def connect(sock, address):
        seen.append(address)
        raise ConnectionRefusedError("stop here")

    monkeypatch.setattr(loop, "sock_connect", connect)
    with pytest.raises(ConnectionRefusedError):
        run(loop, loop.create_connection(Recorder, "fe80::1%lo", 80))
    assert seen == [("fe80::1", 80, 0, socket.if_nametoindex("lo"))]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_server_and_a_client_find_each_other_by_address_and_name(loop, no_leaks, host):
    server = run(loop, loop.create_server(asyncio.Protocol, host, 0))
    port = server.sockets[0].getsockname()[1]
    transport, _ = run(loop, loop.create_connection(Recorder, server.sockets[0].getsockname()[0], port))
    assert transport.get_extra_info("peername")[1] == port
    close(loop, transport)
    server.close()
    turns(loop, 3)
    run(loop, server.wait_closed())


@pytest.mark.parametrize("options", [{"family": "x"}, {"type": None}, {"flags": 1.5}, {"proto": 2**40}], ids=repr)
def test_wrong_arguments_are_refused_as_on_stock_asyncio(loop, options):
    result = same_as_stock(loop, lambda loop: run(loop, loop.getaddrinfo("127.0.0.1", 80, **options)))
    assert result[0] in ("TypeError", "OverflowError")


def test_debug_mode_tells_of_slow_lookups(debug_loop, caplog):
    """The lookup goes the way whose time is told; nothing is told of a quick one."""
    run(debug_loop, debug_loop.getaddrinfo("127.0.0.1", 80))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
