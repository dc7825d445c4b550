"""The loops under comparison, by name."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable

from benchmarks import process

CONTROL = "asyncio"
OURS = "hotloop"
# The one of hotloop's two loops that is not its default.
PROACTOR = "hotloop-proactor"
# uvloop with the transports of aiofastnet in the place of its own, which are faster over TLS.
AIOFASTNET = "aiofastnet-on-uvloop"
DEFAULT = ("asyncio", "hotloop", "uvloop")
# Other loops written for speed, which are compared with where somebody has installed them.
PEERS = ("blazio", "rloop", "rsloop", "talyn", "veloxloop", "zloop", "zuvloop")

Loop = asyncio.AbstractEventLoop
Factory = Callable[[], Loop]


def aiofastnet_on_uvloop() -> asyncio.AbstractEventLoop:
    """A new loop of uvloop's whose networking methods are aiofastnet's."""
    patch_loop: Callable[[asyncio.AbstractEventLoop], asyncio.AbstractEventLoop]
    patch_loop = importlib.import_module("aiofastnet").patch_loop
    return patch_loop(factory("uvloop")())


# Where the loops are made that are no module's `new_event_loop`.
MADE_BY = {
    PROACTOR: "hotloop:ProactorEventLoop",
    AIOFASTNET: "benchmarks.loops:aiofastnet_on_uvloop",
    "talyn": "talyn:Loop",
}


def factory(name: str) -> Factory:
    """The function that makes the loop called `name`.

    `asyncio` is the selector loop of the standard library. Any other name is one of `MADE_BY`, a module, whose
    `new_event_loop` is taken, or `module:function`.

    Raises ImportError or AttributeError where there is no such thing.
    """
    if name == CONTROL:
        return asyncio.SelectorEventLoop
    module, _, attribute = MADE_BY.get(name, name).partition(":")
    made: Factory = getattr(importlib.import_module(module), attribute or "new_event_loop")
    return made


def default() -> list[str]:
    """The loops to compare where nobody says which: those of this project, and whatever peer is installed."""
    return [*DEFAULT, PROACTOR, AIOFASTNET, *[name for name in PEERS if importlib.util.find_spec(name)]]


def installed(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Those of `names` that make a loop here, the control always first; and of each other one, why not.

    Each tries in a process of its own, which it may crash.
    """
    found = [CONTROL]
    missing = {}
    for name in names:
        if name in found:
            continue
        try:
            process.figure(process.python("-W", "ignore", "-m", "benchmarks.loops", name))
        except process.Failure as failure:
            missing[name] = str(failure)
        else:
            found.append(name)
    return found, missing


def versions(names: list[str]) -> dict[str, str]:
    """What is installed of each loop, by its name."""
    return {name: ", ".join(map(version, DISTRIBUTIONS.get(name, (name,)))) for name in names if name != CONTROL}


# Of what a loop consists, where that is not the distribution of its name.
DISTRIBUTIONS = {PROACTOR: ("hotloop",), AIOFASTNET: ("aiofastnet", "uvloop")}


def version(distribution: str) -> str:
    """A distribution and its version."""
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def uvicorn_name(name: str) -> str:
    """The loop called `name`, as `uvicorn --loop` wants it."""
    if name in ("asyncio", "uvloop") or ":" in name:
        return name
    return MADE_BY.get(name, f"{name}:new_event_loop")


if __name__ == "__main__":
    # Whether it makes a loop that runs; the number is only there because one is awaited.
    _loop = factory(sys.argv[1])()
    _loop.run_until_complete(asyncio.sleep(0))
    _loop.close()
    print(0)
