"""Checks of operations on bare sockets: `sock_recv` and its kin."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from benchmarks.conduct.check import Loop, check, demand, expect, run, settle
from benchmarks.conduct.ends import PATIENCE, has_at_once, within

SOCKETS = ("echo_sock_*",)


@check(*SOCKETS)
def what_is_sent_leaves_at_once(loop: Loop) -> None:
    """What `sock_sendall` is given is in the kernel when it is done, and needs no turn where there is room."""

    async def main() -> None:
        async with pair() as (near, far):
            sent: list[str] = []
            loop.call_soon(sent.append, "a turn")
            for _ in range(20):
                await loop.sock_sendall(near, b"bytes")
                has_at_once(far, b"bytes")
            expect(sent, [], "what ran meanwhile")

    run(loop, main())


@check(*SOCKETS)
def what_is_there_needs_no_turn(loop: Loop) -> None:
    """`sock_recv` and `sock_recv_into` answer what is there already without a turn; for what is not, others run."""

    async def main() -> None:
        async with pair() as (near, far):
            far.send(b"firstsecond")
            ran: list[str] = []
            loop.call_soon(ran.append, "a turn")
            expect(await loop.sock_recv(near, 5), b"first", "what was received")
            buffer = bytearray(10)
            expect(await loop.sock_recv_into(near, buffer), 6, "how much was received")
            expect(bytes(buffer[:6]), b"second", "what was received into a buffer")
            expect(ran, [], "what ran meanwhile")
            loop.call_soon(far.send, b"third")
            expect(await loop.sock_recv(near, 100), b"third", "what was waited for")

    run(loop, main())


@check(*SOCKETS)
def a_cancelled_receive_loses_nothing(loop: Loop) -> None:
    """A `sock_recv` that is cancelled while it waits, also when its bytes have just come, takes none of them."""

    async def main() -> None:
        async with pair() as (near, far):
            for _ in range(5):
                waiting = asyncio.ensure_future(loop.sock_recv(near, 100))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                expect(waiting.cancelled(), True, "whether it is cancelled")
                waiting = asyncio.ensure_future(loop.sock_recv(near, 100))
                await asyncio.sleep(0)
                far.send(b"bytes")
                waiting.cancel()
                await asyncio.wait([waiting])
                came = b"" if waiting.cancelled() else waiting.result()
                came += await within(loop.sock_recv(near, 100)) if not came else b""
                expect(came, b"bytes", "what came in all")

    run(loop, main())


@check(*SOCKETS)
def what_does_not_fit_waits(loop: Loop) -> None:
    """`sock_sendall` of far more than a socket holds ends when all is sent, and others run meanwhile."""

    async def main() -> None:
        async with pair() as (near, far):
            data = os.urandom(1 << 20)
            sending = asyncio.ensure_future(loop.sock_sendall(near, data))
            await settle()
            expect(sending.done(), False, "whether it is done while nobody reads")
            came = bytearray()
            far.setblocking(False)
            while len(came) < len(data):
                try:
                    came += far.recv(1 << 16)
                except BlockingIOError:
                    await settle()
            await within(sending)
            expect(bytes(came) == data, True, "whether all came as it was")

    run(loop, main())


@check(*SOCKETS)
def readers_and_writers_are_independent(loop: Loop) -> None:
    """While one task waits to receive from a socket, another sends to it."""

    async def main() -> None:
        async with pair() as (near, far):
            receiving = asyncio.ensure_future(loop.sock_recv(near, 100))
            await asyncio.sleep(0)
            await within(loop.sock_sendall(near, b"question"))
            has_at_once(far, b"question")
            far.send(b"answer")
            expect(await within(receiving), b"answer", "what was received")

    run(loop, main())


@check(same=True)
def bad_sockets_are_refused(loop: Loop) -> object:
    """A socket that is closed, that blocks, in debug mode, or whose peer has reset it raises what asyncio raises."""

    async def attempt(name: str, sock: socket.socket) -> object:
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "recv": lambda: loop.sock_recv(sock, 10),
            "recv_into": lambda: loop.sock_recv_into(sock, bytearray(10)),
            "sendall": lambda: loop.sock_sendall(sock, b"bytes"),
        }
        try:
            return await within(calls[name]())
        except Exception as error:
            return type(error).__name__, getattr(error, "errno", None)

    async def main() -> list[object]:
        found: list[object] = []
        for name in ("recv", "recv_into", "sendall"):
            async with pair() as (near, far):
                far.close()
                found.append((name, "gone", await attempt(name, near)))
            async with pair() as (near, _):
                near.close()
                found.append((name, "closed", await attempt(name, near)))
            async with pair() as (near, far):
                far.send(b"bytes")
                near.setblocking(True)
                loop.set_debug(True)
                found.append((name, "blocks", await attempt(name, near)))
                loop.set_debug(False)
        return found

    return loop.run_until_complete(main())


@check()
def accepting_and_connecting_are_asyncios(loop: Loop) -> None:
    """`sock_connect` and `sock_accept` make both ends of a connection, and what is accepted does not block."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as made:
            listener.setblocking(False)
            made.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await within(loop.sock_connect(made, listener.getsockname()))
            accepted, address = await within(accepting)
            with accepted:
                expect(address, made.getsockname(), "the peer's address")
                demand(not accepted.getblocking(), "what was accepted blocks")
                await loop.sock_sendall(accepted, b"bytes")
                expect(await within(loop.sock_recv(made, 10)), b"bytes", "what was received")

    run(loop, main())


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Two sockets that are connected: one for the loop, and one that blocks."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(PATIENCE)
    with near, far:
        yield near, far


CHECKS = [
    what_is_sent_leaves_at_once,
    what_is_there_needs_no_turn,
    a_cancelled_receive_loses_nothing,
    what_does_not_fit_waits,
    readers_and_writers_are_independent,
    bad_sockets_are_refused,
    accepting_and_connecting_are_asyncios,
]
