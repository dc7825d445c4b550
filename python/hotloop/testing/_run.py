"""Running tests in virtual time, with one seed or many."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from ._loop import EventLoop
from ._network import Faults

__all__ = ["run", "simulate"]

_T = TypeVar("_T")

# The environment variable that has a simulation run one seed.
_VARIABLE = "HOTLOOP_SEED"


def run(
    main: Coroutine[Any, Any, _T],
    *,
    seed: int | None = None,
    faults: Faults | None = None,
    debug: bool | None = None,
) -> _T:
    """Run a coroutine in virtual time, on a new loop, and answer its result.

    :param main: the coroutine.
    :param seed: as of ``EventLoop``. ``None`` takes that of the environment variable ``HOTLOOP_SEED``, or else draws
        one; an exception has a note then that says which it was.
    :param faults: as of ``EventLoop``.
    :param debug: whether the loop runs in debug mode; ``None`` leaves that to the environment.
    :raises RuntimeError: if a loop is running in this thread already.
    :raises Deadlock: if the coroutine waits for something that nobody is left to bring about.
    """
    drawn = seed is None
    loop = EventLoop(_seed_given() if drawn else seed, faults)
    try:
        with asyncio.Runner(debug=debug, loop_factory=lambda: loop) as runner:
            return runner.run(main)
    except BaseException as error:
        if drawn:
            error.add_note(f"{_VARIABLE}={loop.seed} runs it again as it was")
        raise
    finally:
        loop.close()


def simulate(
    main: Callable[[], Coroutine[Any, Any, object]],
    *,
    seeds: int | Iterable[int] = 100,
    faults: Faults | None = None,
) -> None:
    """Run a coroutine function once for each seed. The first exception ends that; its notes say with which seed.

    :param main: the coroutine function. What it finds wrong it raises.
    :param seeds: the seeds, or how many of them from 0 on. The environment variable ``HOTLOOP_SEED`` has one seed in
        their place.
    :param faults: as of ``EventLoop``.
    """
    given = _seed_given()
    if given is not None:
        seeds = (given,)
    elif isinstance(seeds, int):
        seeds = range(seeds)
    for seed in seeds:
        try:
            run(main(), seed=seed, faults=faults)
        except BaseException as error:
            error.add_note(f"{_VARIABLE}={seed} runs it again as it was")
            raise


def _seed_given() -> int | None:
    chosen = os.environ.get(_VARIABLE)
    return int(chosen) if chosen else None
