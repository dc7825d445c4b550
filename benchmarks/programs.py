"""Rows of real servers: FastAPI under uvicorn, aiohttp, websockets, each under load from outside."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import loops, process

# Bytes of a WebSocket's message.
MESSAGE = 1024


@dataclass(frozen=True)
class Program:
    """A server, by its command line, and the one request that it is asked."""

    name: str
    about: str
    command: str
    # The arguments of the load generator; the address goes behind the first.
    load: tuple[str, ...]

    def server(self, loop: str, port: int) -> list[str]:
        """The command that serves on a port of 127.0.0.1."""
        words = self.command.format(loop=loop, uvicorn_loop=loops.uvicorn_name(loop), port=port)
        return process.python(*words.split())

    def request(self, port: int) -> list[str]:
        """What the load generator is told."""
        mode, *rest = self.load
        return [mode, f"127.0.0.1:{port}", *rest]


UVICORN = "--loop {uvicorn_loop} --port {port} --log-level warning --no-access-log"

PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "uvicorn",
            "uvicorn, a bare ASGI application",
            f"-m uvicorn benchmarks.demo.asgi_app:app {UVICORN}",
            ("http", "--expect", "hello"),
        ),
        Program(
            "fastapi",
            "FastAPI on uvicorn",
            f"-m uvicorn benchmarks.demo.fastapi_app:app {UVICORN}",
            ("http", "--path", "/items/42?tag=new", "--expect", '{"number":42,"name":"item 42","tags":["new"]}'),
        ),
        Program(
            "aiohttp",
            "aiohttp",
            "-m benchmarks.demo.aiohttp_server --loop {loop} --port {port}",
            ("http", "--path", "/hello/world", "--expect", '{"hello": "world"}'),
        ),
        Program(
            "websockets",
            "websockets, echo of 1 KiB",
            "-m benchmarks.demo.websockets_server --loop {loop} --port {port}",
            ("websocket", "--size", str(MESSAGE)),
        ),
    )
}


def measure(program: Program, loop: str, duration: float) -> process.Load:
    """One round of one loop, on a fresh server, with 50 connections. Raises process.Failure when that fails."""
    port = process.free_port()
    with process.server(program.server(loop, port), port) as (pid, _):
        return process.load(program.request(port), pid=pid, duration=duration)
