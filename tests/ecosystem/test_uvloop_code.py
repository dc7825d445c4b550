"""Programs that are written for uvloop, after one change: ``import hotloop as uvloop``."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator

import pytest

import hotloop as uvloop


@pytest.fixture(autouse=True)
def policy() -> Iterator[None]:
    """Put asyncio's policy back, and let Pythons deprecate policies."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*policy.*", DeprecationWarning)
        yield
        asyncio.set_event_loop_policy(None)


async def running() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


def test_run() -> None:
    assert isinstance(uvloop.run(running()), uvloop.Loop)
    assert uvloop.run(running(), debug=True).get_debug()
    made = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(uvloop.new_event_loop())
        return made[-1]

    assert uvloop.run(running(), loop_factory=factory) is made[0]


def test_run_with_the_loop_of_another() -> None:
    assert type(uvloop.run(running(), loop_factory=asyncio.SelectorEventLoop)) is asyncio.SelectorEventLoop


def test_install() -> None:
    uvloop.install()
    assert isinstance(asyncio.run(running()), uvloop.Loop)


def test_policy() -> None:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    assert isinstance(asyncio.run(running()), uvloop.Loop)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    assert asyncio.get_event_loop() is loop
    assert isinstance(loop, uvloop.Loop)
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, uvloop.Loop], ids=["new_event_loop", "Loop"])
def test_runner(factory: type[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.run(running())
        assert isinstance(loop, uvloop.Loop)
        assert loop is runner.get_loop()
    assert loop.is_closed()


def test_loop_by_hand() -> None:
    loop = uvloop.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        assert loop.run_until_complete(running()) is loop
        loop.call_soon(loop.stop)
        loop.run_forever()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_a_subclass() -> None:
    class Loop(uvloop.Loop):
        called = 0

        def create_task(self, coro, **kwargs):
            self.called += 1
            return super().create_task(coro, **kwargs)

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert isinstance(runner.run(running()), Loop)
        assert runner.get_loop().called > 0


def test_both_kinds_are_loops() -> None:
    assert issubclass(uvloop.SelectorEventLoop, uvloop.Loop)
    assert issubclass(uvloop.ProactorEventLoop, uvloop.Loop)
    assert issubclass(uvloop.Loop, asyncio.AbstractEventLoop)
