"""Debug mode: slow callbacks, calls of the wrong thread, coroutines where callbacks are wanted."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest

from harness import Recorder, attach, close, normalised, outcome, run, same_as_stock, stock_loop, turns, unix_pair


def busy():
    """Take longer than the limit that the tests set."""
    end = time.monotonic() + 0.01
    while time.monotonic() < end:
        pass


async def slow_coroutine():
    """Take long inside of one step."""
    busy()


def messages(loop, caplog, act):
    """What the loop logs while `act(loop)` runs with a limit of 5 ms."""
    caplog.clear()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.005
    act(loop)
    return [normalised(record.getMessage()) for record in caplog.records if "took" in record.getMessage()]


@pytest.mark.parametrize(
    "act",
    [
        lambda loop: (loop.call_soon(busy), turns(loop)),
        lambda loop: (loop.call_later(0, busy), turns(loop, 2)),
        lambda loop: loop.run_until_complete(slow_coroutine()),
    ],
    ids=["call_soon", "call_later", "task"],
)
def test_slow_callbacks_are_told_as_on_stock_asyncio(loop, caplog, act):
    """uvloop#103, uvloop#563: with the name of the coroutine, not of what wraps its step."""

    def text(line):
        return re.sub(r" when=[\d.]+", "", line).split("-")[0]

    with stock_loop() as stock:
        expected = [text(line) for line in messages(stock, caplog, act)]
    found = [text(line) for line in messages(loop, caplog, act)]
    assert any("busy" in line or "slow_coroutine" in line or "Task" in line for line in expected)
    assert [line for line in found if line in expected] == expected


def test_quick_callbacks_are_not_told(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 20
    loop.call_soon(int)
    turns(loop)
    assert "took" not in caplog.text


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at"])
def test_a_call_of_the_wrong_thread_is_refused(debug_loop, method):
    """uvloop#103"""
    outcomes = []
    arguments = (int,) if method == "call_soon" else (1, int)

    def inside():
        thread = threading.Thread(
            target=lambda: outcomes.append(outcome(lambda: getattr(debug_loop, method)(*arguments)))
        )
        thread.start()
        thread.join()

    debug_loop.call_soon(inside)
    turns(debug_loop)
    assert outcomes == [
        ("RuntimeError", "Non-thread-safe operation invoked on an event loop other than the current one")
    ]


def test_call_soon_threadsafe_of_another_thread_is_right(debug_loop):
    seen = []

    def inside():
        thread = threading.Thread(target=lambda: debug_loop.call_soon_threadsafe(seen.append, 1))
        thread.start()
        thread.join()

    debug_loop.call_soon(inside)
    turns(debug_loop, 2)
    assert seen == [1]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_coroutine_as_a_callback_is_refused_as_on_stock_asyncio(debug_loop, method):
    arguments = () if method.startswith("call_soon") else (1,)
    result = same_as_stock(debug_loop, lambda loop: getattr(loop, method)(*arguments, slow_coroutine))
    assert result[1].startswith("coroutines cannot be used with call_")
    awaited = slow_coroutine()
    result = same_as_stock(debug_loop, lambda loop: getattr(loop, method)(*arguments, awaited))
    assert result[1].startswith("coroutines cannot be used with call_")
    awaited.close()


def test_debug_mode_can_be_switched_while_the_loop_runs(loop, caplog):
    seen = []
    loop.slow_callback_duration = 0.005

    async def main():
        loop.set_debug(True)
        await asyncio.sleep(0)
        loop.call_soon(busy)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(caplog.text.count("busy"))
        loop.set_debug(False)
        await asyncio.sleep(0)
        loop.call_soon(busy)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(caplog.text.count("busy"))

    run(loop, main())
    assert seen[0] >= 1
    assert seen[1] == seen[0]


def test_a_report_has_where_the_callback_was_scheduled(debug_loop, unhandled):
    def fail():
        raise ZeroDivisionError

    debug_loop.call_soon(fail)
    turns(debug_loop)
    report = unhandled.pop()
    assert report["source_traceback"][-1].filename == __file__


def test_a_slow_protocol_is_told(loop, caplog):
    class Slow(Recorder):
        def data_received(self, data):
            busy()

    near, far = unix_pair()
    transport, _ = attach(loop, near, Slow)

    def receive(loop):
        far.send(b"x")
        turns(loop, 3)

    assert messages(loop, caplog, receive)
    close(loop, transport)
    far.close()
