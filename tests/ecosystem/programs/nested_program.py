"""nest_asyncio: a loop that is run again inside of a run, with connections, timers, threads and processes in both."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from typing import Any

import nest_asyncio
from chosen import answer, new_loop, package_of

said: dict[str, Any] = {}
#: The certificate chain, its key, and the authority.
chain, key, authority = sys.argv[2:5]
BODY = bytes(range(256)) * 4096


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def exchange(tls: bool) -> bool:
    server_tls = client_tls = None
    if tls:
        server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_tls.load_cert_chain(chain, key)
        client_tls = ssl.create_default_context(cafile=authority)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_tls) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls)
        writer.write(BODY)
        received = await reader.readexactly(len(BODY))
        # Two writes of one turn: what a native turn gathers has to leave all the same.
        writer.write(b"and")
        writer.write(b"more")
        received += await reader.readexactly(7)
        writer.close()
        await writer.wait_closed()
    return received == BODY + b"andmore"


async def datagrams() -> str:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    class Answering(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data[::-1], addr)

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            done.set_result(data.decode())

    server, _ = await loop.create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, _ = await loop.create_datagram_endpoint(Asking, remote_addr=address)
    client.sendto(b"datagram")
    answered = await done
    server.close()
    client.close()
    await asyncio.sleep(0)
    return answered


async def everything() -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        received = loop.create_task(loop.sock_recv(near, 10))
        await asyncio.sleep(0)
        far.send(b"watched")
        watched = (await received).decode()
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    output, _ = await process.communicate(b"through cat")
    signalled = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, signalled.set_result, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    await signalled
    loop.remove_signal_handler(signal.SIGUSR1)
    order: list[int] = []

    async def sleep(number: int) -> None:
        await asyncio.sleep(number / 100)
        order.append(number)

    await asyncio.gather(*(sleep(number) for number in (3, 1, 2)))
    cancelled = loop.call_later(0.001, order.append, "cancelled")
    cancelled.cancel()
    try:
        await asyncio.wait_for(asyncio.sleep(1000), 0.005)
    except TimeoutError:
        order.append(4)
    return {
        "plain": await exchange(False),
        "tls": await exchange(True),
        "datagram": await datagrams(),
        "watched": watched,
        "process": output.decode(),
        "returncode": process.returncode,
        "order": order,
        "thread": await asyncio.to_thread(pow, 2, 10),
        "left": len(asyncio.all_tasks()),
    }


async def deep(levels: int) -> int:
    """Runs the loop inside of itself, so many times."""
    await asyncio.sleep(0)
    if levels == 0:
        return 0
    return 1 + asyncio.get_running_loop().run_until_complete(deep(levels - 1))


async def outer() -> None:
    loop = asyncio.get_running_loop()
    ticks: list[None] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)
            ticks.append(None)

    ticking = loop.create_task(tick())
    said["inside"] = asyncio.run(everything())
    said["deep"] = asyncio.run(deep(5))
    # Tasks of the outer run go on in the inner one.
    said["outer goes on inside"] = bool(ticks)
    ticks.clear()
    while not ticks:
        await asyncio.sleep(0.001)
    ticking.cancel()
    # A timer that is due in the very turn in which the loop is run inside of itself.
    due = loop.create_future()
    loop.call_soon(lambda: loop.call_later(0, due.set_result, "due"))
    await asyncio.sleep(0)
    said["due"] = loop.run_until_complete(due)
    said["outside"] = await everything()


loop = new_loop()
asyncio.set_event_loop(loop)
said["loop"] = package_of(loop)
if sys.argv[5] == "before":
    nest_asyncio.apply(loop)
    loop.run_until_complete(outer())
else:

    async def late() -> None:
        """In a loop that runs already, as in a notebook."""
        nest_asyncio.apply()
        # Of asyncio's Python classes, which it has put in their places, and by which alone runs can be nested.
        task = asyncio.get_running_loop().create_task(outer())
        await task

    loop.run_until_complete(late())
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
answer(said)
