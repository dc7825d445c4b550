"""A plain ASGI application, for any ASGI server: nothing of a framework between the server and the test."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from payload import PIECE, payload
from printing import say

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: How many bytes of each download, by its tag, the server has taken from the application.
taken: dict[str, int] = {}
#: Set for each tag whose request was seen to be given up by its client.
given_up: dict[str, asyncio.Event] = {}


async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer as the path says; see the functions below."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo_messages(receive, send)
    else:
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        await PATHS[scope["path"]](scope, query, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Print when the application starts and stops, so that a test can see the stop was a graceful one."""
    while True:
        kind = (await receive())["type"]
        say(kind)
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def echo_messages(receive: Receive, send: Send) -> None:
    """Send back each WebSocket message."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{key: message.get(key) for key in ("text", "bytes")}})


async def respond(send: Send, body: bytes, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Receive) -> list[bytes]:
    """The request's body, as the pieces that it came in."""
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", "the client went away in the middle of its request"
        pieces.append(message["body"])
        if not message.get("more_body"):
            return pieces


async def which(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """Which loop runs this, which protocol class of the server parsed it, and who asks."""
    cycle = getattr(send, "__self__", None)
    answer = {
        "loop": type(asyncio.get_running_loop()).__module__,
        "http": type(cycle).__module__,
        "peer": scope["client"][1],
    }
    await respond(send, json.dumps(answer).encode())


async def digest(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """Length and SHA-256 of what is uploaded."""
    body = b"".join(await read(receive))
    await respond(send, json.dumps({"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}).encode())


async def echo(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """The body sent back, in one piece of known length."""
    await respond(send, b"".join(await read(receive)), b"application/octet-stream")


async def upload(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """As `digest`, and it prints the moment when the first piece of the body is there."""
    first = await receive()
    say("upload has begun")
    rest = await read(receive) if first.get("more_body") else []
    await respond(send, str(len(first["body"]) + sum(map(len, rest))).encode())


async def pieces(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """A body of unknown length, written in `count` pieces, empty ones among them."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for number in range(int(query["count"])):
        piece = f"[{query['tag']}:{number}]".encode() * number
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def download(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """`size` bytes of the payload, as fast as the server takes them."""
    body = memoryview(payload(int(query["size"])))
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), PIECE):
        await send({"type": "http.response.body", "body": bytes(body[start : start + PIECE]), "more_body": True})
        taken[query.get("tag", "")] = start + PIECE
    await send({"type": "http.response.body", "body": b""})


async def progress(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """How much of the download `tag` the server has taken."""
    await respond(send, json.dumps(taken.get(query["tag"], 0)).encode())


async def never(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """No answer at all; ends when the client gives the request up."""
    event = given_up.setdefault(query["tag"], asyncio.Event())
    await read(receive)
    assert (await receive())["type"] == "http.disconnect"
    event.set()


async def gone(scope: Any, query: dict[str, str], receive: Receive, send: Send) -> None:
    """Answers once the client of the request `tag` to `never` has gone away."""
    await given_up.setdefault(query["tag"], asyncio.Event()).wait()
    await respond(send, b"true")


PATHS = {
    "/which": which,
    "/digest": digest,
    "/echo": echo,
    "/upload": upload,
    "/pieces": pieces,
    "/download": download,
    "/progress": progress,
    "/never": never,
    "/gone": gone,
}
