"""Protocols of child processes in random programs: what each is told, by actors whose own order is determined.

The end of a child and that of each of its pipes come in any order, so each is an actor; so are its first and its last
word, before and after all others.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

from prelude import World
from wires import Pausing, digest


class Guardian(Pausing, asyncio.SubprocessProtocol):
    """A protocol that tells what it is told, and the parent who waits for it."""

    def __init__(self, world: World, name: str, fails: str = "") -> None:
        self.world, self.name, self.fails = world, name, fails
        self.transport: Any = None
        self.output = {1: bytearray(), 2: bytearray()}
        self.ended: list[str] = []
        self.has_errors = True
        """Whether the trace tells how a pipe was lost."""
        self.news = asyncio.Event()

    def log(self, actor: str, *what: Any) -> None:
        self.world.log(f"{self.name}-{actor}", *what)

    def _may_fail(self, method: str) -> None:
        if self.fails == method:
            raise ValueError(f"{self.name} {method}")

    def connection_made(self, transport: Any) -> None:
        self.log("life", "connection_made", isinstance(transport, asyncio.SubprocessTransport), self.ended)
        self.transport = transport
        self._may_fail("connection_made")

    def pipe_data_received(self, fd: int, received: bytes) -> None:
        assert f"pipe {fd}" not in self.ended
        is_first = not any(self.output.values())
        self.output[fd] += received
        self.news.set()
        # In how many pieces more than a little comes is the kernel's to say, and a report shows the piece.
        if is_first and len(received) < 1000:
            self._may_fail("pipe_data_received")

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        how = type(error).__name__ if self.has_errors else "somehow"
        self.log(f"pipe{fd}", "is lost", how, digest(self.output.get(fd, b"")))
        self._end(f"pipe {fd}")
        self._may_fail("pipe_connection_lost")

    def process_exited(self) -> None:
        self.log("end", "process_exited", self.transport.get_returncode())
        self._end("child")
        self._may_fail("process_exited")

    def connection_lost(self, error: Exception | None) -> None:
        self.log("life", "connection_lost", type(error).__name__, sorted(self.ended))
        self._end("life")
        self._may_fail("connection_lost")

    def _end(self, what: str) -> None:
        assert what not in self.ended
        self.ended.append(what)
        self.news.set()

    async def _until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self.news.clear()
            await self.news.wait()

    # What a parent does.

    def write(self, *pieces: bytes) -> None:
        """Write pieces to the child, several by `writelines`."""
        pipe = self.transport.get_pipe_transport(0)
        if len(pieces) == 1:
            pipe.write(pieces[0])
        else:
            pipe.writelines(pieces)

    async def drain(self) -> None:
        await self._until(lambda: not self.is_paused)

    async def read(self, size: int, fd: int = 1) -> str:
        """What the child has written, once it is so much."""
        await self._until(lambda: len(self.output[fd]) >= size or f"pipe {fd}" in self.ended)
        taken = bytes(self.output[fd][:size])
        del self.output[fd][:size]
        return digest(taken)

    async def end(self, what: str = "life") -> None:
        """Wait until the child, one of its pipes or all of it has ended."""
        await self._until(lambda: what in self.ended)

    def pipe(self, fd: int) -> Any:
        return self.transport.get_pipe_transport(fd)

    def tell(self) -> None:
        """Log what the transport says of itself."""
        transport = self.transport
        pipes = [type(transport.get_pipe_transport(fd)).__mro__[-2].__name__ for fd in range(4)]
        process = transport.get_extra_info("subprocess")
        says = (transport.get_pid() == process.pid, transport.is_closing(), transport.get_extra_info("nothing"), *pipes)
        self.world.log(self.name, "is", transport.get_returncode(), *says)

    def attempt(self, call: str, *arguments: Any) -> None:
        """Log what comes of a method of the transport."""
        self.world.attempt(self.name, lambda: getattr(self.transport, call)(*arguments))


async def raise_child(
    world: World, name: str, arguments: tuple[Any, ...], pipes: tuple[Any, Any, Any], *, fails: str = "", **options: Any
) -> Guardian:
    """Start a child, by a shell where it is one text."""
    stdin, stdout, stderr = pipes
    start: Any = world.loop.subprocess_exec if len(arguments) > 1 else world.loop.subprocess_shell
    transport, protocol = await start(
        lambda: Guardian(world, name, fails), *arguments, stdin=stdin, stdout=stdout, stderr=stderr, **options
    )
    world.log(name, "has a child", transport.get_protocol() is protocol, protocol.transport is transport)
    world.closing.append(transport.close)
    return protocol


def temporary_file(world: World) -> Any:
    """A file for what a child writes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with the world
    world.closing.append(file.close)
    return file


def content(file: Any) -> str:
    """What is in it."""
    file.seek(0)
    return digest(file.read())


#: Words for pipes, as programs have them.
PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
