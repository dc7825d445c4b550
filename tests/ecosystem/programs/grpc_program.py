"""grpc.aio: a server and a client on one loop, which hears of both by one socket that a thread of grpc's writes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from chosen import answer, package_of, run
from grpc.aio import EOF, AioRpcError, insecure_channel, server

Calls = AsyncIterator[bytes]
Context = grpc.aio.ServicerContext

ended = asyncio.Event()
"""Set where the server is told that a call of `forever` has no caller any more."""


async def upper(request: bytes, context: Context) -> bytes:
    return request.upper()


async def fail(request: bytes, context: Context) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, request.decode())


async def total(requests: Calls, context: Context) -> bytes:
    return b"%d" % sum([len(request) async for request in requests])


async def count(request: bytes, context: Context) -> Calls:
    for number in range(int(request)):
        yield b"%d" % number


async def echo(requests: Calls, context: Context) -> Calls:
    async for request in requests:
        yield request


async def forever(request: bytes, context: Context) -> Calls:
    yield b"begun"
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        ended.set()


HANDLERS = {
    "upper": grpc.unary_unary_rpc_method_handler(upper),
    "fail": grpc.unary_unary_rpc_method_handler(fail),
    "total": grpc.stream_unary_rpc_method_handler(total),
    "count": grpc.unary_stream_rpc_method_handler(count),
    "echo": grpc.stream_stream_rpc_method_handler(echo),
    "forever": grpc.unary_stream_rpc_method_handler(forever),
}


async def talk(channel: grpc.aio.Channel) -> dict[str, Any]:
    said: dict[str, Any] = {}
    calls = [channel.unary_unary("/test/upper")(b"call %d" % number) for number in range(200)]
    said["unary"] = await asyncio.gather(*calls) == [b"CALL %d" % number for number in range(200)]

    async def requests() -> Calls:
        for _ in range(100):
            yield bytes(20_000)

    said["stream up"] = int(await channel.stream_unary("/test/total")(requests()))
    said["stream down"] = [int(reply) async for reply in channel.unary_stream("/test/count")(b"500")] == [*range(500)]

    both = channel.stream_stream("/test/echo")()
    replies = []
    for number in range(50):
        await both.write(b"%d" % number)
        replies.append(int(await both.read()))
    await both.done_writing()
    said["both ways"] = replies == [*range(50)] and await both.read() is EOF

    said["failure"] = await code_of(channel.unary_unary("/test/fail")(b"no such thing"))

    cancelled = channel.unary_stream("/test/forever")(b"")
    assert await cancelled.read() == b"begun"
    cancelled.cancel()
    await ended.wait()
    said["cancelled"] = cancelled.cancelled()

    ended.clear()
    waiting = channel.unary_stream("/test/forever")(b"")
    assert await waiting.read() == b"begun"
    task = asyncio.create_task(waiting.read())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await ended.wait()
    said["task cancelled"] = task.cancelled() and waiting.cancelled()

    # Nothing ends it but the deadline.
    late = channel.unary_stream("/test/forever")(b"", timeout=0.2)
    said["deadline"] = await code_of(last_of(late))
    return said


async def last_of(replies: Calls) -> bytes:
    """The last reply of a stream."""
    return [reply async for reply in replies][-1]


async def code_of(call: Any) -> str:
    """The status that a call fails with."""
    try:
        await call
    except AioRpcError as error:
        return error.code().name
    return "OK"


async def main() -> None:
    serving = server()
    serving.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", HANDLERS),))
    port = serving.add_insecure_port("127.0.0.1:0")
    await serving.start()
    async with insecure_channel(f"127.0.0.1:{port}") as channel:
        said = await talk(channel)
    await serving.stop(None)
    # A task that was told to go needs its turn to go; one that stays was forgotten.
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(left, timeout=20)
    said["tasks left"] = [repr(task) for task in left if not task.done()]
    answer(said | {"loop": package_of(asyncio.get_running_loop())})


run(main())
