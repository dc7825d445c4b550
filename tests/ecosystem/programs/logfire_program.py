"""logfire's warnings of slow callbacks, by a replaced ``Handle._run``: what it has seen with a limit of nothing."""

from __future__ import annotations

import asyncio
import socket

import logfire
from chosen import answer, package_of, run
from logfire.testing import SimpleSpanProcessor, TestExporter

exporter = TestExporter()
logfire.configure(
    send_to_logfire=False,
    console=False,
    inspect_arguments=False,
    additional_span_processors=[SimpleSpanProcessor(exporter)],
)


def soon() -> None:
    pass


def later() -> None:
    pass


def from_a_thread() -> None:
    pass


async def work(near: socket.socket, far: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()

    def ready() -> None:
        near.recv(1)
        readable.set_result(None)

    with logfire.span("the task's"):
        loop.add_reader(near, ready)
        loop.call_soon(soon)
        loop.call_later(0, later)
        await asyncio.to_thread(loop.call_soon_threadsafe, from_a_thread)
        far.send(b"x")
        await readable
    loop.remove_reader(near)


async def main() -> str:
    near, far = socket.socketpair()
    with near, far, logfire.log_slow_async_callbacks(0):
        near.setblocking(False)
        await asyncio.create_task(work(near, far), name="worker")
    await asyncio.sleep(0)
    return package_of(asyncio.get_running_loop())


loop = run(main())
spans = exporter.exported_spans_as_dict()
names = {span["context"]["span_id"]: span["name"] for span in spans}
expected = {
    "callback soon",
    "callback later",
    "callback from_a_thread",
    "callback work.<locals>.ready",
    "task worker (work)",
}
seen = [
    (span["attributes"]["name"], names.get(span["parent"]["span_id"]) if span["parent"] else None)
    for span in spans
    if span["attributes"].get("name") in expected
]
answer({"loop": loop, "seen": sorted(set(seen), key=repr)})
