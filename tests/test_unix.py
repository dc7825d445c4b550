"""Unix stream sockets: paths of every kind, and whose path it is that is removed."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import sys

import pytest

from harness import PATIENCE, Recorder, close, run, same_as_stock, turns


def connect(path):
    """A blocking client of a Unix server."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


@pytest.mark.parametrize("kind", ["str", "bytes", "pathlib", "abstract", "abstract bytes"])
def test_paths_of_every_kind(loop, tmp_path, kind):
    """uvloop#528, uvloop#623: path objects and abstract names, on both sides."""
    name = str(tmp_path / "socket")
    path = {
        "str": name,
        "bytes": os.fsencode(name),
        "pathlib": pathlib.Path(name),
        "abstract": f"\0hotloop test {os.getpid()}",
        "abstract bytes": b"\0hotloop test bytes %d" % os.getpid(),
    }[kind]
    server = run(loop, loop.create_unix_server(Echo, path))
    transport, protocol = run(loop, loop.create_unix_connection(Recorder, path))
    transport.write(b"hello")
    assert run(loop, protocol.wait_received(5)) == b"hello"
    assert transport.get_extra_info("socket").family == socket.AF_UNIX
    expected = path if kind.startswith("abstract b") else path.encode() if kind == "abstract" else name
    assert transport.get_extra_info("peername") == expected
    close(loop, transport)
    server.close()
    turns(loop, 3)
    run(loop, server.wait_closed())


def test_closing_the_server_removes_its_path_from_3_13_on(loop, tmp_path):
    """uvloop#623"""
    path = tmp_path / "socket"
    server = run(loop, loop.create_unix_server(Echo, path))
    assert path.is_socket()
    server.close()
    run(loop, server.wait_closed())
    assert path.exists() == (sys.version_info < (3, 13))


def test_closing_the_server_keeps_the_path_when_asked_to(loop, tmp_path):
    if sys.version_info < (3, 13):
        with pytest.raises(TypeError):
            run(loop, loop.create_unix_server(Echo, tmp_path / "socket", cleanup_socket=False))
        return
    path = tmp_path / "socket"
    server = run(loop, loop.create_unix_server(Echo, path, cleanup_socket=False))
    server.close()
    run(loop, server.wait_closed())
    assert path.is_socket()


@pytest.mark.parametrize("by", ["another socket", "file", "nothing"])
def test_a_path_that_somebody_made_anew_is_kept(loop, tmp_path, by):
    """uvloop#623, zuvloop#84"""
    path = tmp_path / "socket"
    server = run(loop, loop.create_unix_server(Echo, path))
    path.unlink()
    other = socket.socket(socket.AF_UNIX)
    if by == "another socket":
        other.bind(str(path))
    elif by == "file":
        path.write_bytes(b"precious")
    server.close()
    run(loop, server.wait_closed())
    other.close()
    assert path.exists() == (by != "nothing")


def test_a_stale_path_is_replaced(loop, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = run(loop, loop.create_unix_server(Echo, path))
    with connect(str(path)) as client:
        client.send(b"x")
        assert run(loop, loop.run_in_executor(None, client.recv, 1)) == b"x"
    server.close()
    turns(loop, 3)
    run(loop, server.wait_closed())


@pytest.mark.parametrize("fault", ["file", "directory", "no directory", "too long", "in use"])
def test_a_path_that_cannot_be_bound_ends_as_on_stock_asyncio(loop, tmp_path, fault):
    path = tmp_path / "socket"
    busy = socket.socket(socket.AF_UNIX)
    if fault == "file":
        path.write_bytes(b"")
    elif fault == "directory":
        path.mkdir()
    elif fault == "no directory":
        path = path / "missing" / "socket"
    elif fault == "too long":
        path = tmp_path / ("x" * 200)
    else:
        path = f"\0hotloop in use {os.getpid()}"
        busy.bind(path)
        busy.listen()
    same_as_stock(loop, lambda loop: run(loop, loop.create_unix_server(Echo, path)))
    busy.close()


@pytest.mark.parametrize("fault", ["missing", "nobody listens", "file"])
def test_a_connect_that_fails_ends_as_on_stock_asyncio(loop, tmp_path, fault):
    path = tmp_path / "socket"
    if fault == "nobody listens":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    elif fault == "file":
        path.write_bytes(b"")
    result = same_as_stock(loop, lambda loop: run(loop, loop.create_unix_connection(Recorder, path)))
    assert result[0] in ("FileNotFoundError", "ConnectionRefusedError")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "/nowhere", "sock": "both"},
        {"sock": "tcp"},
        {"sock": "datagram"},
        {"path": "/nowhere", "server_hostname": "name"},
        {"path": "/nowhere", "ssl": True},
        {"path": "/nowhere", "ssl_handshake_timeout": 1},
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_wrong_arguments_are_refused_as_on_stock_asyncio(loop, no_leaks, arguments, method):
    sockets = {
        "both": socket.socket(socket.AF_UNIX),
        "tcp": socket.socket(socket.AF_INET),
        "datagram": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    }
    options = {**arguments, **({"sock": sockets[arguments["sock"]]} if "sock" in arguments else {})}

    assert same_as_stock(loop, lambda loop: run(loop, getattr(loop, method)(Echo, **options)))[0] != "returned"
    for sock in sockets.values():
        sock.close()


def test_streams_over_unix(loop, tmp_path):
    path = tmp_path / "socket"

    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def talk():
        server = await asyncio.start_unix_server(serve, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello\n")
        assert await reader.read() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, talk())


def test_a_server_on_a_socket_passed_in(loop, tmp_path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "socket"))
    server = run(loop, loop.create_unix_server(Echo, sock=sock))
    with connect(str(tmp_path / "socket")) as client:
        client.send(b"x")
        assert run(loop, loop.run_in_executor(None, client.recv, 1)) == b"x"
    server.close()
    turns(loop, 3)
    run(loop, server.wait_closed())


def test_the_peer_of_an_unnamed_client_is_unnamed(loop, tmp_path):
    names = []

    class Asking(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            names.append((transport.get_extra_info("peername"), transport.get_extra_info("sockname")))
            transport.close()

    path = str(tmp_path / "socket")
    server = run(loop, loop.create_unix_server(Asking, path))
    with connect(path) as client:
        assert run(loop, loop.run_in_executor(None, client.recv, 1)) == b""
    server.close()
    run(loop, server.wait_closed())
    assert names == [("", path)]
