"""A FastAPI application: JSON, dependencies, threads, background tasks, uploads and server-sent events."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, Request, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from payload import payload
from printing import say
from pydantic import BaseModel

#: For each stream of events, by its tag: how many events its client has asked for, and whether it was closed.
wanted: dict[str, asyncio.Semaphore] = {}
closed: dict[str, asyncio.Event] = {}
ran_afterwards: dict[str, asyncio.Event] = {}

caller: ContextVar[str] = ContextVar("caller")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    say("the application starts")
    yield
    say("the application stops")


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    numbers: list[int]


@app.get("/loop")
async def loop() -> str:
    return type(asyncio.get_running_loop()).__module__


@app.post("/items/{number}")
async def item(number: int, item: Item) -> Item:
    return Item(name=item.name.upper(), numbers=[*item.numbers, number])


def in_a_thread(request: Request) -> Iterator[str]:
    """A dependency that is no coroutine: FastAPI runs it in a thread, and the context comes along."""
    caller.set(request.headers["caller"])
    assert threading.current_thread() is not threading.main_thread()
    yield caller.get()


@app.get("/thread")
def thread(name: Annotated[str, Depends(in_a_thread)]) -> dict[str, str | bool]:
    return {"name": name, "main": threading.current_thread() is threading.main_thread()}


@app.post("/files")
async def files(file: UploadFile) -> dict[str, str | int]:
    content = await file.read()
    return {"name": file.filename or "", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@app.get("/blob/{size}")
async def blob(size: int) -> StreamingResponse:
    body = payload(size)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield body[start : start + 10_000]

    return StreamingResponse(pieces())


@app.post("/background/{tag}")
async def background(tag: str, tasks: BackgroundTasks) -> None:
    event = ran_afterwards.setdefault(tag, asyncio.Event())

    async def run() -> None:
        event.set()

    tasks.add_task(run)


@app.get("/background/{tag}")
async def background_ran(tag: str) -> bool:
    return await ran_afterwards.setdefault(tag, asyncio.Event()).wait()


@app.get("/events/{tag}", response_class=EventSourceResponse)
async def events(tag: str) -> AsyncIterator[ServerSentEvent]:
    """An event for each time that `/more/{tag}` was asked: never before the client has done so."""
    number = 0
    try:
        while True:
            await wanted.setdefault(tag, asyncio.Semaphore(0)).acquire()
            yield ServerSentEvent(data={"number": number}, id=str(number), event="count")
            number += 1
    finally:
        closed.setdefault(tag, asyncio.Event()).set()


@app.get("/plain-events/{tag}")
async def plain_events(tag: str) -> StreamingResponse:
    """The same by hand, as applications did it before FastAPI knew of events."""

    async def lines() -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                await wanted.setdefault(tag, asyncio.Semaphore(0)).acquire()
                yield f'event: count\nid: {number}\ndata: {{"number": {number}}}\n\n'
                number += 1
        finally:
            closed.setdefault(tag, asyncio.Event()).set()

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/flood/{tag}")
async def flood(tag: str) -> StreamingResponse:
    """Events without end, as fast as the server takes them."""

    async def lines() -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                yield f"data: {number:0100d}\n\n"
                number += 1
                # uvicorn takes what is sent to a client that has gone without a turn of the loop in between, and it is
                # in such a turn that this stream is cancelled.
                await asyncio.sleep(0)
        finally:
            closed.setdefault(tag, asyncio.Event()).set()

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.post("/more/{tag}")
async def more(tag: str) -> None:
    wanted.setdefault(tag, asyncio.Semaphore(0)).release()


@app.get("/closed/{tag}")
async def was_closed(tag: str) -> bool:
    """Answers once the stream of events has ended on the server."""
    return await closed.setdefault(tag, asyncio.Event()).wait()


@app.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    await socket.accept()
    async for message in socket.iter_text():
        await socket.send_json({"length": len(message), "loop": type(asyncio.get_running_loop()).__module__})
