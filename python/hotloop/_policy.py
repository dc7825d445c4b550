"""How a program comes by a loop."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from ._loop import EventLoop, ProactorEventLoop, SelectorEventLoop

__all__ = ["EventLoopPolicy", "install", "new_event_loop", "run", "uninstall"]

_T = TypeVar("_T")


# The environment variable that chooses where a program does not.
_VARIABLE = "HOTLOOP_LOOP"

_WORDS = ("selector", "proactor", "auto")


def new_event_loop(driver: Literal["selector", "proactor", "auto"] | None = None) -> EventLoop:
    """Make a loop. It is not set as the current one.

    :param driver: "selector" for a ``SelectorEventLoop``, "proactor" for a ``ProactorEventLoop``, "auto" for a proactor
        where the kernel has all that makes it the faster one and lets this process use it, else a selector, without a
        word. ``None`` leaves the choice to the environment variable ``HOTLOOP_LOOP``, which takes the same words;
        where that is not set either, or empty, it is "selector", as on asyncio. ``loop.driver`` says what came of it.
    :raises ValueError: if the argument, or the variable, is another word.
    :raises OSError: if the kernel refuses what was asked for, or no descriptor is left.
    """
    if driver is None:
        word, source = os.environ.get(_VARIABLE) or "selector", _VARIABLE
    else:
        word, source = driver, "driver"
    if word == "selector":
        return SelectorEventLoop()
    if word == "proactor":
        return ProactorEventLoop()
    if word != "auto":
        raise ValueError(f"{source} must be one of {', '.join(map(repr, _WORDS))}, not {word!r}")
    try:
        return ProactorEventLoop()
    except OSError:
        # The attempt is the probe: one system call where io_uring is refused.
        return SelectorEventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine on a new loop, as ``asyncio.run`` does, and answer its result.

    :param main: the coroutine.
    :param debug: whether the loop runs in debug mode; ``None`` leaves that to the environment.
    :raises RuntimeError: if a loop is running in this thread already.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)


def _default_policy() -> type[Any]:
    """asyncio's default policy, whose name is deprecated since 3.14."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return asyncio.DefaultEventLoopPolicy


class EventLoopPolicy(_default_policy()):  # type: ignore[misc]
    """A policy whose loops are hotloop's; in everything else asyncio's default one."""

    def new_event_loop(self) -> EventLoop:
        """Make a loop. It is not set as the current one."""
        return new_event_loop()


def install() -> None:
    """Make hotloop's policy the global one, so that ``asyncio.run`` and the like run on hotloop.

    Prefer ``hotloop.run(...)`` or a ``loop_factory``: policies leave asyncio in Python 3.16.
    """
    _set_policy(EventLoopPolicy())


def uninstall() -> None:
    """Restore asyncio's default policy."""
    _set_policy(None)


def _set_policy(policy: Any) -> None:
    if sys.version_info < (3, 14):
        asyncio.set_event_loop_policy(policy)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(policy)
