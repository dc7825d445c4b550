"""An aiohttp application, as a program: ``aiohttp_app.py LOOP_FACTORY`` runs it with ``web.run_app``."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator

from aiohttp import web
from payload import payload
from printing import say


async def loop(request: web.Request) -> web.Response:
    return web.json_response(type(asyncio.get_running_loop()).__module__)


stopping = web.AppKey("stopping", asyncio.Event)


async def until_shutdown(request: web.Request) -> web.Response:
    """Answers only when the application is being shut down."""
    say("the request runs")
    await request.app[stopping].wait()
    return web.Response(body=payload(1 << 20))


async def life(app: web.Application) -> AsyncIterator[None]:
    app[stopping] = asyncio.Event()
    yield
    say("the application stops")


async def shutdown(app: web.Application) -> None:
    """Called when the server listens no longer, before it waits for what is running."""
    app[stopping].set()


def main() -> None:
    module, _, attribute = sys.argv[1].partition(":")
    app = web.Application()
    app.cleanup_ctx.append(life)
    app.on_shutdown.append(shutdown)
    app.add_routes([web.get("/loop", loop), web.get("/until-shutdown", until_shutdown)])
    web.run_app(app, host="127.0.0.1", port=0, loop=getattr(importlib.import_module(module), attribute)())
    say("run_app has returned")


if __name__ == "__main__":
    main()
