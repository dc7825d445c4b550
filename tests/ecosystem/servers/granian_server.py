"""granian with a loop of its own registry: ``python granian_server.py MODULE:FACTORY PORT``."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys

import granian
from granian.constants import Interfaces


# By name, and where the module is imported: the workers, which are spawned, look it up again.
@granian.loops.register("chosen")
def build() -> asyncio.AbstractEventLoop:
    """The loop of the process, as granian's own builders make theirs."""
    module, _, attribute = os.environ["FACTORY"].partition(":")
    loop = getattr(importlib.import_module(module), attribute)()
    asyncio.set_event_loop(loop)
    return loop


if __name__ == "__main__":
    granian.Granian(
        "asgi_app:app",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        loop="chosen",  # type: ignore[arg-type]
        workers=2,
    ).serve()
