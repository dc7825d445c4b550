"""Connections by the loop under pytest-socket, which refuses all but what is allowed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest_socket
from chosen import answer, package_of, run


async def attempt(connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]) -> str:
    try:
        _, writer = await connect()
    except pytest_socket.SocketConnectBlockedError:
        return "refused host"
    except pytest_socket.SocketBlockedError:
        return "refused socket"
    writer.close()
    await writer.wait_closed()
    return "connected"


async def main() -> dict[str, object]:
    said: list[str] = []
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        for allowed in (["127.0.0.2"], ["127.0.0.1"]):
            pytest_socket.socket_allow_hosts(allowed)
            said.append(await attempt(lambda: asyncio.open_connection(*address)))
        pytest_socket.disable_socket()
        said.append(await attempt(lambda: asyncio.open_connection(*address)))
        pytest_socket.enable_socket()
        pytest_socket._remove_restrictions()
        said.append(await attempt(lambda: asyncio.open_connection(*address)))
    with socket.socket() as sock:
        said.append(type(sock).__name__)
    return {"loop": package_of(asyncio.get_running_loop()), "said": said}


answer(run(main()))
