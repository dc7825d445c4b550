"""The loop that a program's command line names."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Coroutine
from typing import Any


def new_loop() -> asyncio.AbstractEventLoop:
    """Make one of the loops that the first argument names, as ``module:callable``."""
    module, _, attribute = sys.argv[1].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def run(main: Coroutine[Any, Any, object]) -> Any:
    """Run a coroutine on such a loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def package_of(loop: asyncio.AbstractEventLoop) -> str:
    """The top-level package that a loop's class comes from."""
    return type(loop).__module__.partition(".")[0]


def answer(said: object) -> None:
    """Print what the program has found."""
    print(json.dumps(said), flush=True)
