"""What a check of conduct is, and what checks are written with."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

Loop = asyncio.AbstractEventLoop

# Rows, by patterns of their names, to which a claim may matter.
CALLS = ("call_soon*",)
TIMERS = ("call_later_cancel", "timers")
# Those where a turn has next to nothing but one callback.
TURNS = ("call_soon_chain", "sleep_0", "future", "queue")
TASKS = ("gather", "sleep_0", "future", "queue")
READERS = ("echo_streams_*", "stream_lines")
PROGRAMS = ("uvicorn", "fastapi", "aiohttp", "websockets")
# Whatever writes to a stream transport of a socket.
TRANSPORTS = (
    *("echo_protocol_*", "echo_buffered_*", "echo_streams_*"),
    *("writelines_*", "accept_rate", "unix_stream"),
    *PROGRAMS,
)
# Of these the ones whose protocol is not a `BufferedProtocol`, which is told of bytes differently.
RECEIVING = tuple(pattern for pattern in TRANSPORTS if "buffered" not in pattern)
# The rows that receive more at once than some loops ask for.
BULK = ("stream_lines", "echo_streams_100k", "echo_protocol_100k", "echo_protocol_256k", "echo_protocol_1m")
# The rows that make connections by the thousand.
CONNECTIONS = ("connect_rate", "connect_rate_unix", "accept_rate")
DATAGRAMS = ("udp_*",)


class Broken(Exception):
    """A loop does not keep a claim. The message says what it does instead."""


@dataclass(frozen=True)
class Check:
    """One claim, and the program that shows whether a loop keeps it."""

    name: str
    # What a loop of asyncio does, in one sentence.
    claim: str
    # The rows to which it matters: patterns of their names. None where keeping it costs next to nothing.
    rows: tuple[str, ...]
    # Raises Broken, or anything else, on a loop that is not running. With `same`, what it answers is compared with what
    # it answers on stock asyncio.
    run: Callable[[Loop], object] = field(compare=False)
    same: bool = False
    # The least version of Python that has what it checks.
    since: tuple[int, int] = (3, 11)


Found = Callable[[Callable[[Loop], object]], Check]


def check(*rows: str, same: bool = False, since: tuple[int, int] = (3, 11)) -> Found:
    """Makes a check of a function; its documentation is the claim. See `Check`."""

    def made(run: Callable[[Loop], object]) -> Check:
        claim = " ".join((inspect.getdoc(run) or "").split()).rstrip(".")
        return Check(run.__name__, claim, rows, run, same, since)

    return made


def expect(found: object, wanted: object, what: str) -> None:
    """Raises Broken unless the two are equal."""
    if found != wanted:
        raise Broken(f"{what}: {found!r}, not {wanted!r}")


def demand(holds: object, otherwise: str) -> None:
    """Raises Broken, with this message, unless the first is true."""
    if not holds:
        raise Broken(otherwise)


def run_turns(loop: Loop, turns: int = 20) -> None:
    """Runs the loop for so many turns, without ever waiting."""
    loop.run_until_complete(pass_turns(turns))


async def pass_turns(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def settle() -> None:
    """Lets everything happen that is under way: for a loop like asyncio's the turns do, others may want the time."""
    for _ in range(5):
        await pass_turns(5)
        await asyncio.sleep(0.002)


async def from_callback(act: Callable[[], object]) -> None:
    """Calls `act` from a callback of the running loop. Raises what it raises."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def called() -> None:
        try:
            act()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    loop.call_soon(called)
    await done


def run(loop: Loop, coroutine: Coroutine[Any, Any, object]) -> None:
    loop.run_until_complete(coroutine)
