"""What works on stock asyncio works here: TLS, datagrams, pipes, subprocesses, sendfile."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import threading

import pytest
import trustme
from harness import PATIENCE, Recorder, attach, close, received_in_thread, run, turns


@pytest.fixture(scope="module")
def authority():
    """A certificate authority of the tests' own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


async def echo(reader, writer):
    """Send back what comes until it ends."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_tls_echo(loop, server_context, client_context, size):
    payload = os.urandom(size)

    async def talk():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_context, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").version().startswith("TLS")
        assert writer.get_extra_info("peercert")["subjectAltName"]
        assert writer.get_extra_info("cipher")
        writer.write(payload)
        assert await reader.readexactly(size) == payload
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, talk())
    turns(loop, 3)


def test_tls_with_a_wrong_name_is_refused(loop, server_context, client_context, unhandled):
    async def talk():
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=client_context, server_hostname="other.name"
            )
        server.close()
        await asyncio.sleep(0)

    run(loop, talk())
    turns(loop, 5)
    unhandled.clear()


def test_start_tls(loop, server_context, client_context):
    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"GO\n")
        await writer.drain()
        await writer.start_tls(server_context)
        await echo(reader, writer)

    async def talk():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"GO\n"
        await writer.start_tls(client_context, server_hostname="localhost")
        writer.write(b"secret")
        assert await reader.readexactly(6) == b"secret"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(loop, talk())
    turns(loop, 3)


class Datagrams(asyncio.DatagramProtocol):
    """Keeps what it gets."""

    def __init__(self):
        self.received = asyncio.Queue()
        self.errors = asyncio.Queue()

    def datagram_received(self, data, address):
        self.received.put_nowait((data, address))

    def error_received(self, exc):
        self.errors.put_nowait(exc)


def test_datagrams(loop):
    async def talk():
        one, first = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        address = one.get_extra_info("sockname")
        two, second = await loop.create_datagram_endpoint(Datagrams, remote_addr=address)
        two.sendto(b"hello")
        data, sender = await first.received.get()
        assert (data, sender) == (b"hello", two.get_extra_info("sockname"))
        one.sendto(b"", sender)
        one.sendto(b"answer", sender)
        got = [await second.received.get()]
        if got[0][0] == b"":
            got.append(await second.received.get())
        assert got[-1] == (b"answer", address)
        one.close()
        await asyncio.sleep(0)
        two.sendto(b"to nobody")
        assert isinstance(await second.errors.get(), ConnectionRefusedError)
        two.close()

    run(loop, talk())
    turns(loop, 2)


def test_pipes(loop):
    async def talk():
        read, write = os.pipe()
        reading, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(read, "rb", 0))
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
        assert isinstance(reading, asyncio.ReadTransport)
        assert isinstance(writing, asyncio.WriteTransport)
        writing.write(bytes(300_000))
        await protocol.wait_received(300_000)
        writing.close()
        await protocol.lost

    run(loop, talk())
    turns(loop, 2)


def test_a_subprocess_that_echoes_much(loop):
    """uvloop#363"""
    payload = os.urandom(300_000)

    async def talk():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
        out, _ = await process.communicate(payload)
        return out, process.returncode

    assert run(loop, talk()) == (payload, 0)
    turns(loop, 2)


def test_subprocesses_end_and_are_killed(loop):
    async def talk():
        shell = await asyncio.create_subprocess_shell("exit 3")
        assert await shell.wait() == 3
        waiting = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1)
        waiting.kill()
        assert await waiting.wait() == -9
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/nonexistent")
        several = [await asyncio.create_subprocess_exec(sys.executable, "-c", "print(5)", stdout=-1) for _ in range(3)]
        assert [out for out, _ in await asyncio.gather(*(one.communicate() for one in several))] == [b"5\n"] * 3

    run(loop, talk())
    turns(loop, 2)


@pytest.mark.parametrize("fallback", [True, False])
def test_sendfile_over_a_transport(loop, tcp, tmp_path, fallback):
    near, far = tcp
    path = tmp_path / "file"
    payload = os.urandom(500_000)
    path.write_bytes(payload)
    transport, _ = attach(loop, near)
    with path.open("rb") as file, received_in_thread(far) as received:
        transport.write(b"head")
        assert run(loop, loop.sendfile(transport, file, fallback=fallback)) == len(payload)
        transport.write(b"tail")
        transport.write_eof()
        turns(loop, 2)
    assert received == [b"head" + payload + b"tail"]
    close(loop, transport)


def test_a_unix_datagram_pair(loop, no_leaks):
    """uvloop#304"""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def talk():
        transport, protocol = await loop.create_datagram_endpoint(Datagrams, sock=near)
        far.send(b"hello")
        assert (await protocol.received.get())[0] == b"hello"
        transport.close()

    run(loop, talk())
    turns(loop, 2)
    far.close()


def test_the_synchronisation_of_asyncio(loop):
    async def talk():
        lock, queue, event = asyncio.Lock(), asyncio.Queue(), asyncio.Event()
        async with lock, asyncio.TaskGroup() as group:
            group.create_task(queue.put(5))
            group.create_task(event.wait())
            assert await queue.get() == 5
            event.set()
        return await asyncio.to_thread(threading.get_ident)

    assert run(loop, asyncio.wait_for(talk(), PATIENCE)) != threading.get_ident()
