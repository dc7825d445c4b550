"""A small aiohttp server: `python -m benchmarks.demo.aiohttp_server --loop NAME --port PORT`."""

from __future__ import annotations

import argparse

from aiohttp import web

from benchmarks import loops


async def hello(request: web.Request) -> web.Response:
    return web.json_response({"hello": request.match_info["name"]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = web.Application()
    app.add_routes([web.get("/hello/{name}", hello)])
    loop = loops.factory(options.loop)()
    web.run_app(app, host="127.0.0.1", port=options.port, loop=loop, access_log=None, print=None)


if __name__ == "__main__":
    main()
