"""Puts the loop under test where a module of the suite makes a mock loop although any loop would do.

Without this, test_runners, test_pep492, test_futures and two thirds of test_tasks would prove nothing about the loop.
Only what makes the loop is replaced, on the control as well, and only where the module still has it: a name that a
newer Python dropped fails the run, so that the replacement is looked at.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any


def adapt(module: ModuleType) -> None:
    """Replaces the fixtures of `module`, one of the suite's, that make a mock loop."""
    name = module.__name__.rpartition(".")[2]
    if name == "test_runners":
        _replace(module.BaseTest, "new_loop", _runners_new_loop)
    elif name == "test_pep492":
        _replace(module.BaseTest, "setUp", _pep492_set_up)
    elif name in ("test_futures", "test_tasks"):
        _replace(module.test_utils.TestCase, "new_test_loop", _new_test_loop)


def _replace(cls: type, name: str, by: Any) -> None:
    if name not in vars(cls):
        raise RuntimeError(f"{cls.__module__}.{cls.__qualname__} has no {name} any more")
    setattr(cls, name, by)


def _runners_new_loop(self: Any) -> Any:
    """A loop that notes whether its asynchronous generators were shut down, which the tests' teardown asks for."""
    loop: Any = asyncio.SelectorEventLoop()
    shutdown_asyncgens = loop.shutdown_asyncgens
    loop.shutdown_ag_run = False

    async def shutdown_and_note() -> None:
        loop.shutdown_ag_run = True
        await shutdown_asyncgens()

    loop.shutdown_asyncgens = shutdown_and_note
    return loop


def _pep492_set_up(self: Any) -> None:
    from test.test_asyncio import utils

    utils.TestCase.setUp(self)
    self.loop = asyncio.SelectorEventLoop()
    self.set_event_loop(self.loop)


def _new_test_loop(self: Any, gen: Any = None) -> Any:
    """A real loop, except for a test that drives the clock (`gen`) or that is of a module left alone."""
    from test.test_asyncio import utils

    if gen is not None or type(self).__module__.rpartition(".")[2] not in ("test_futures", "test_tasks"):
        loop: Any = utils.TestLoop(gen)
    else:
        loop = asyncio.SelectorEventLoop()
    self.set_event_loop(loop)
    return loop
