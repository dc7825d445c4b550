"""Checks of TLS: what a program learns of a connection, how one begins, fails and ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.conduct.check import Loop, check, demand, expect, from_callback, run, settle
from benchmarks.conduct.ends import LONG, PATIENCE, Recorder, within

TLS = ("echo_tls_*", "connect_tls_*", "tls_*")
NAME = "localhost"


def new_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The context of a server and that of a client that trusts it."""
    # Not at the top: only these checks need it.
    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    for context in (server, client):
        context.set_alpn_protocols(["first", "second"])
    return server, client


# Those that no check changes.
contexts = functools.cache(new_contexts)


@check(same=True)
def both_ends_of_tls_are_known(loop: Loop) -> object:
    """A transport tells its certificate, cipher, protocol and context, and its `SSLObject`, as asyncio's does."""

    async def main() -> object:
        server, client = contexts()
        async with connected() as (accepted, made):
            transport = made.transport
            session = transport.get_extra_info("ssl_object")
            return [
                transport.get_extra_info("peercert")["subjectAltName"],
                transport.get_extra_info("cipher"),
                transport.get_extra_info("compression"),
                transport.get_extra_info("sslcontext") is client,
                accepted.transport.get_extra_info("sslcontext") is server,
                (session.version(), session.selected_alpn_protocol(), session.server_hostname),
                type(session).__name__,
                transport.get_extra_info("peername")[0],
                accepted.transport.get_extra_info("peername") == transport.get_extra_info("sockname"),
            ]

    return loop.run_until_complete(main())


@check(same=True)
def handshakes_fail_as_asyncios(loop: Loop) -> object:
    """A certificate that is not trusted, a wrong name, a peer without TLS and one that is silent raise what they do."""

    async def attempt(port: int, **options: Any) -> object:
        try:
            await within(loop.create_connection(asyncio.Protocol, "127.0.0.1", port, **options))
        except Exception as error:
            return type(error).__name__, getattr(error, "reason", None), getattr(error, "verify_code", None)
        return "no failure"

    async def main() -> list[object]:
        loop.set_exception_handler(lambda _, report: None)
        server, client = contexts()
        strangers = ssl.create_default_context()
        serving = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=server)
        port = serving.sockets[0].getsockname()[1]
        found = [
            await attempt(port, ssl=strangers, server_hostname=NAME),
            await attempt(port, ssl=client, server_hostname="another.invalid"),
        ]
        serving.close()
        plain = await loop.create_server(lambda: Recorder(lambda t, _: t.write(b"no TLS here\n")), "127.0.0.1", 0)
        found.append(await attempt(plain.sockets[0].getsockname()[1], ssl=client, server_hostname=NAME))
        plain.close()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            found.append(await attempt(port, ssl=client, server_hostname=NAME, ssl_handshake_timeout=0.05))
        return found

    return loop.run_until_complete(main())


@check(*TLS)
def contexts_keep_their_callbacks(loop: Loop) -> None:
    """A context's `sni_callback` is called with the connection's `SSLObject`, and keys go to its `keylog_filename`."""

    async def main() -> None:
        server, client = new_contexts()
        asked: list[tuple[bool, str | None]] = []

        def named(session: object, name: str | None, _: ssl.SSLContext) -> None:
            asked.append((isinstance(session, ssl.SSLObject), name))

        server.sni_callback = named
        with tempfile.NamedTemporaryFile() as keys:
            client.keylog_filename = keys.name
            async with connected(server, client) as (accepted, made):
                made.transport.write(b"question")
                await within(accepted.receives())
            demand(keys.read(), "it logs no keys")
        expect(asked, [(True, NAME)], "whether it is asked with an SSLObject, and for which name")

    run(loop, main())


# Not where a handshake is nearly all of a row.
@check("echo_tls_*", "tls_*")
def a_write_to_tls_leaves_at_once(loop: Loop) -> None:
    """With nothing queued, what `write` is given is encrypted and in the kernel when it returns."""

    async def main() -> None:
        async with connected() as (accepted, made):
            arriving = accepted.transport.get_extra_info("socket")

            def write(length: int) -> None:
                made.transport.write(bytes(length))
                # The loop is here, and receives nothing meanwhile.
                ready, _, _ = select.select([arriving], [], [], PATIENCE)
                demand(ready, f"what was written, {length} bytes, is not in the kernel when write() has returned")

            for length in (1_000, 60_000) * 5:
                await settle()
                await from_callback(functools.partial(write, length))
                await within(accepted.receives())

    run(loop, main())


@check(*TLS)
def the_end_of_tls_is_told(loop: Loop) -> None:
    """A connection that the peer closes is told its bytes, the end and the loss, each once and without an error."""

    async def main() -> None:
        async with connected() as (accepted, made):
            accepted.transport.write(b"last")
            accepted.transport.close()
            await within(made.lost)
            await settle()
            expect(made.told, ["made", b"last", "eof", ("lost", None)], "what one end was told")
            expect(accepted.told[-1], ("lost", None), "what the other end was told last")

    run(loop, main())


@check(*TLS)
def a_full_tls_connection_pauses_its_writer(loop: Loop) -> None:
    """A writer of far more than the other end takes is paused and resumed, and all of it comes."""

    async def main() -> None:
        piece = bytes(range(256)) * 1024
        data = b""
        async with connected() as (accepted, made):
            accepted.transport.pause_reading()
            # Where a connection over TCP holds a few megabytes of its own.
            while "pause" not in made.told and len(data) < 1 << 26:
                made.transport.write(piece)
                data += piece
                await asyncio.sleep(0)
            expect(made.told, ["made", "pause"], "what the writer was told")
            accepted.transport.resume_reading()
            async with asyncio.timeout(LONG):
                while sum(map(len, pieces(accepted))) < len(data):
                    await settle()
            expect(b"".join(pieces(accepted)) == data, True, "whether all came as it was")
            expect(made.told, ["made", "pause", "resume"], "what the writer was told in the end")

    run(loop, main())


@check()
def plain_connections_can_change_to_tls(loop: Loop) -> None:
    """`start_tls` makes a connection that was plain one of TLS, at both ends."""

    async def main() -> None:
        server, client = contexts()
        ends = [asyncio.get_running_loop().create_connection(Recorder, sock=sock) for sock in tcp_pair()]
        (near, answering), (far, asking) = await asyncio.gather(*ends)
        upgraded: tuple[Any, Any] = await within(
            asyncio.gather(
                loop.start_tls(near, answering, server, server_side=True),
                loop.start_tls(far, asking, client, server_hostname=NAME),
            )
        )
        upgraded[1].write(b"question")
        await within(answering.receives())
        expect(answering.told, ["made", b"question"], "what the server's end was told")
        for transport, protocol in zip(upgraded, (answering, asking), strict=True):
            transport.abort()
            await within(protocol.lost)

    run(loop, main())


@check()
def an_aborted_tls_connection_ends_at_once(loop: Loop) -> None:
    """`abort` of a connection of TLS ends it without waiting for the peer, and nothing is told of it but the loss."""

    async def main() -> None:
        async with connected() as (accepted, made):
            accepted.transport.pause_reading()
            made.transport.write(bytes(1 << 24))
            made.transport.abort()
            await within(made.lost)
            expect([told for told in made.told if told not in ("made", "pause")], [("lost", None)], "what it was told")

    run(loop, main())


def pieces(protocol: Recorder) -> list[bytes]:
    """What a protocol has received."""
    return [told for told in protocol.told if isinstance(told, bytes)]


def tcp_pair() -> list[socket.socket]:
    """Both ends of a connection over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    for sock in (accepted, made):
        sock.setblocking(False)
    return [accepted, made]


@contextlib.asynccontextmanager
async def connected(
    server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """A connection of TLS, by contexts of these checks or by others: who was accepted, and who was made."""
    loop = asyncio.get_running_loop()
    server = server or contexts()[0]
    client = client or contexts()[1]
    arrived: asyncio.Future[Recorder] = loop.create_future()

    class Accepted(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            arrived.set_result(self)

    serving = await loop.create_server(Accepted, "127.0.0.1", 0, ssl=server)
    address = serving.sockets[0].getsockname()
    connecting = loop.create_connection(Recorder, *address, ssl=client, server_hostname=NAME)
    _, made = await within(connecting)
    accepted = await within(arrived)
    try:
        yield accepted, made
    finally:
        for protocol in (accepted, made):
            protocol.transport.abort()
            await within(protocol.lost)
        serving.close()


CHECKS = [
    both_ends_of_tls_are_known,
    handshakes_fail_as_asyncios,
    contexts_keep_their_callbacks,
    a_write_to_tls_leaves_at_once,
    the_end_of_tls_is_told,
    a_full_tls_connection_pauses_its_writer,
    plain_connections_can_change_to_tls,
    an_aborted_tls_connection_ends_at_once,
]
