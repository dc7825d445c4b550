"""call_later and call_at: never early, by `when`, cheap to cancel, and silent while there is nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import decimal
import fractions
import gc
import math
import sys
import time
import weakref

import pytest

from harness import loop_class, run, same_as_stock, same_trace_as_stock, turns


class Thing:
    """Something that a weak reference can be taken of."""


def resolution() -> float:
    """The resolution of the clock, in seconds: the tolerance of asyncio itself."""
    return time.get_clock_info("monotonic").resolution


@pytest.mark.parametrize("delay", [0, 1e-9, 1e-6, 1e-5, 1e-4, 9e-4, 1e-3, 1.0001e-3, 1.5e-3, 0.0029, 0.01])
def test_never_fires_early(loop, delay):
    """uvloop#233, cpython#127859: a rate limiter that is called early loops again, or lets too much through."""
    early = []

    def fired(when):
        now = loop.time()
        if now + resolution() < when:
            early.append(when - now)
        loop.stop()

    for _ in range(20):
        handle = loop.call_later(delay, lambda: fired(handle.when()))
        loop.run_forever()
    assert early == []


def test_fires_when_call_at_says(loop):
    when = loop.time() + 0.003
    times = []
    assert loop.call_at(when, lambda: times.append(loop.time())).when() == when
    loop.call_at(when, loop.stop)
    loop.run_forever()
    assert times[0] + resolution() >= when


def test_time_is_the_monotonic_clock(loop):
    """uvloop#29"""
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()


@pytest.mark.parametrize("when", ["before the run", "within the run"])
def test_a_replaced_clock_is_the_loops(loop, monkeypatch, when):
    """freezegun and others put a function of their own in the place of `time.monotonic`."""

    def scenario(loop, trace):
        start = time.monotonic()
        passed = 0.0

        def replace():
            monkeypatch.setattr(time, "monotonic", lambda: start + passed)

        async def main():
            nonlocal passed
            replace()
            loop.call_later(5, trace.append, "fired")
            trace.append(f"after {loop.time() - start:.3f} s")
            for seconds in (0.0, 4.5, 5.5):
                passed = seconds
                for _ in range(3):
                    await asyncio.sleep(0)
                trace.append(f"after {loop.time() - start:.3f} s")
            monkeypatch.undo()
            trace.append(str(loop.time() - start < 4))

        if when == "before the run":
            replace()
        loop.run_until_complete(main())

    same_trace_as_stock(loop, scenario)


def test_a_replaced_clock_may_raise(loop, monkeypatch):
    def fail():
        raise ZeroDivisionError("no time")

    monkeypatch.setattr(time, "monotonic", fail)
    assert same_as_stock(loop, lambda loop: loop.time()) == ("ZeroDivisionError", "no time")
    assert same_as_stock(loop, lambda loop: loop.call_later(1, int)) == ("ZeroDivisionError", "no time")


def test_time_goes_on_inside_a_callback(loop):
    """uvloop#29: no time cached per turn."""
    times = []

    def busy():
        start = loop.time()
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        times.append(loop.time() - start)

    loop.call_soon(busy)
    turns(loop)
    assert times[0] >= 0.002 - resolution()


def test_a_delay_counts_from_the_call_and_not_from_the_turn(loop):
    """uvloop#29"""
    whens = []

    def busy():
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            pass
        whens.append((time.monotonic(), loop.call_later(0.001, int).when()))

    loop.call_soon(busy)
    turns(loop)
    called, when = whens[0]
    assert when >= called + 0.001
    loop.call_later(0.002, loop.stop)
    loop.run_forever()


@pytest.mark.parametrize("delay", [0, -1, -0.0, 0.0, -1e9])
def test_zero_and_negative_delays_give_a_timer_handle(loop, delay):
    """uvloop#482, uvloop#704, zuvloop#47"""
    before = loop.time()
    handle = loop.call_later(delay, int)
    assert isinstance(handle, asyncio.TimerHandle)
    assert before + delay <= handle.when() <= loop.time() + delay
    turns(loop, 2)


def test_past_due_timers_fire_by_when(loop):
    """rloop#64, rloop#40: by time and not by the order of the calls."""
    seen = []
    now = loop.time()
    for late in (1, 3, 2, 5, 4):
        loop.call_at(now - late, seen.append, late)
    turns(loop, 2)
    assert seen == [5, 4, 3, 2, 1]


def test_timers_fire_by_when_whatever_the_order_of_the_calls(loop):
    seen = []
    base = loop.time() - 100
    for number in range(500):
        place = number * 263 % 500
        loop.call_at(base + place / 10, seen.append, place)
    turns(loop, 2)
    assert seen == sorted(seen)
    assert len(seen) == 500


@pytest.mark.parametrize("count", [2, 3])
def test_a_few_equal_timers_fire_in_the_order_of_the_calls(loop, count):
    def scenario(loop, trace):
        when = loop.time() - 1
        for number in range(count):
            loop.call_at(when, trace.append, str(number))
        turns(loop, 2)

    same_trace_as_stock(loop, scenario)


def test_many_equal_timers_all_fire(loop):
    """asyncio promises no order of them (its heap gives none), only that each one fires."""
    seen = []
    when = loop.time() - 1
    for number in range(1000):
        loop.call_at(when, seen.append, number)
    turns(loop, 2)
    assert sorted(seen) == list(range(1000))


def test_a_cancelled_timer_does_not_fire(loop):
    seen = []
    loop.call_later(0, seen.append, "cancelled").cancel()
    loop.call_later(-1, seen.append, "fires")
    turns(loop, 2)
    assert seen == ["fires"]


def test_a_timer_cancelled_by_an_earlier_one_of_the_turn_does_not_fire(loop):
    seen = []
    second = loop.call_at(loop.time() - 1, seen.append, "second")
    loop.call_at(loop.time() - 2, second.cancel)
    turns(loop, 2)
    assert seen == []


def test_scheduled_and_arguments_follow_the_life_of_a_timer(loop):
    """uvloop#482, uvloop#704, zuvloop#47: tools look at these."""
    cancelled, fired = loop.call_later(1000, print, 1), loop.call_later(0, int)
    assert (cancelled._scheduled, fired._scheduled) == (True, True)
    assert cancelled._args == (1,)
    cancelled.cancel()
    assert cancelled._callback is None
    assert cancelled._args is None
    turns(loop, 2)
    assert (cancelled._scheduled, fired._scheduled) == (False, False)


def test_a_time_limit_that_is_not_reached_takes_no_room(loop, loop_name):
    """Set and cancelled one behind another, all in one turn: the loop keeps none of them."""
    kept = [loop.call_later(1000, int) for _ in range(3)]
    gone = []
    for _ in range(200):
        timer = loop.call_later(2000, int)
        gone.append(weakref.ref(timer))
        timer.cancel()
    del timer
    alive = [ref for ref in gone if ref() is not None]
    # Stock asyncio drops them in its next turn.
    assert len(alive) == (200 if loop_name == "asyncio" else 0)
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == kept
    turns(loop)
    assert set(loop._scheduled) == set(kept)
    for timer in kept:
        timer.cancel()


def test_scheduled_lists_the_timers(loop):
    timers = {loop.call_later(1000 + number, int) for number in range(5)}
    assert set(loop._scheduled) == timers
    for timer in timers:
        timer.cancel()
    turns(loop, 2)
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


def test_timers_compare_as_on_stock_asyncio(loop):
    """uvloop#482"""
    now = loop.time()
    early, late, twin = loop.call_at(now + 1000, int), loop.call_at(now + 2000, int), loop.call_at(now + 1000, int)
    try:
        assert early < late
        assert early <= late
        assert late > early
        assert late >= early
        assert early == twin
        assert early != late
        assert early <= twin
        assert early >= twin
        assert hash(early) == hash(twin) == hash(now + 1000)
        assert early != 1
        with pytest.raises(TypeError):
            _ = early < 1
    finally:
        for timer in (early, late, twin):
            timer.cancel()


@pytest.mark.parametrize("delay", [1e10, sys.maxsize, 1e300, math.inf, 2**31, 2**63, 2**64])
def test_huge_delays_are_accepted(loop, delay):
    """uvloop#259, uvloop#289, zuvloop#76: and do not keep what is due sooner from running."""
    handle = loop.call_later(delay, pytest.fail, "fired")
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert handle.when() >= delay
    handle.cancel()


@pytest.mark.parametrize(
    "delay",
    [
        10**400, -(10**400), None, "1", b"1", [], object, True, math.nan, math.inf, -math.inf,
        fractions.Fraction(1, 2), decimal.Decimal(1),
    ],
    ids=repr,
)  # fmt: skip
def test_odd_delays_end_as_on_stock_asyncio(loop, delay):
    same_as_stock(loop, lambda loop: loop.call_later(delay, int).cancel())


@pytest.mark.parametrize("when", [None, 5, 10**30, 1.5, True, math.inf, -math.inf, fractions.Fraction(1, 2)], ids=repr)
def test_when_is_kept_as_on_stock_asyncio(loop, when):
    def kept(loop):
        handle = loop.call_at(when, int)
        try:
            return handle.when()
        finally:
            handle.cancel()

    same_as_stock(loop, kept)
    if when is not None:
        assert kept(loop) == when


def test_a_timer_at_nan_ends_as_on_stock_asyncio(loop):
    """zuvloop#76"""

    def scenario(loop, trace):
        loop.call_later(math.nan, trace.append, "nan")
        loop.call_soon(trace.append, "soon")
        turns(loop, 2)

    same_trace_as_stock(loop, scenario)


def test_a_cancelled_timer_lets_its_callback_go_at_once(loop):
    """uvloop#201, uvloop#239, uvloop#240"""
    thing = Thing()
    gone = weakref.ref(thing)
    gc.disable()
    try:
        handle = loop.call_later(1000, print, thing)
        del thing
        handle.cancel()
        assert gone() is None
    finally:
        gc.enable()


def test_a_fired_timer_lets_its_callback_go(loop):
    thing = Thing()
    gone = weakref.ref(thing)
    gc.disable()
    try:
        loop.call_later(0, lambda _: None, thing)
        del thing
        turns(loop, 2)
        assert gone() is None
    finally:
        gc.enable()


def test_cancelled_timers_do_not_pile_up(loop):
    """uvloop#37, uvloop#239: timers far off that are cancelled go long before they are due, with the collector off."""
    handles: list[weakref.ref[asyncio.TimerHandle]] = []
    gc.disable()
    try:
        for _ in range(100):
            for _ in range(100):
                timer = loop.call_later(3600, int)
                timer.cancel()
                handles.append(weakref.ref(timer))
            del timer
            turns(loop)
        assert sum(1 for handle in handles if handle() is not None) < 500
        assert len(loop._scheduled) < 500
    finally:
        gc.enable()


def test_wait_for_that_returns_in_time_leaves_no_timer(loop):
    """uvloop#201: one timer of an hour a request, for ever."""

    async def requests():
        for _ in range(2000):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await asyncio.wait_for(future, 3600)

    run(loop, requests())
    turns(loop, 2)
    assert len(loop._scheduled) < 500


def test_finalisers_may_schedule_timers_while_cancelled_ones_are_cleared(loop):
    """zuvloop#15: the list of timers changes under the hands of who clears it."""
    late = []

    class Restless:
        def __del__(self):
            late.append(loop.call_later(3600, int))

    for _ in range(300):
        timer = loop.call_later(1000, int, Restless())
        timer.cancel()
    turns(loop, 3)
    assert len(late) == 300
    for timer in late:
        timer.cancel()
    turns(loop, 3)


def test_a_callback_may_cancel_and_schedule_many(loop):
    seen = []
    timers = [loop.call_later(1000, seen.append, "never") for _ in range(500)]

    def churn():
        for timer in timers:
            timer.cancel()
        timers[:] = [loop.call_at(loop.time() - 1, seen.append, "due") for _ in range(500)]

    loop.call_later(0, churn)
    turns(loop, 3)
    assert seen == ["due"] * 500


def test_a_timer_that_repeats_at_once_does_not_starve_a_reader(loop, unix):
    """zuvloop#83, libuv#4246"""
    near, far = unix
    got = []

    def again():
        if not got:
            loop.call_later(0, again)

    def readable():
        got.append(near.recv(1))
        loop.stop()

    loop.add_reader(near, readable)
    loop.call_later(0, again)
    far.send(b"x")
    loop.run_forever()
    loop.remove_reader(near)
    turns(loop, 2)
    assert got == [b"x"]


def test_a_timer_that_repeats_at_once_does_not_starve_callbacks(loop):
    seen = []

    def again():
        if len(seen) < 10:
            loop.call_later(-1, again)

    def soon():
        seen.append("soon")
        if len(seen) < 10:
            loop.call_soon(soon)
        else:
            loop.stop()

    loop.call_later(-1, again)
    loop.call_soon(soon)
    loop.run_forever()
    turns(loop, 3)
    assert len(seen) == 10


def test_an_idle_loop_is_idle(loop):
    """tideway#308: a timer far off costs no processor time before it is due."""
    far_off = loop.call_later(10, int)
    loop.call_later(0.3, loop.stop)
    before = time.thread_time()
    loop.run_forever()
    used = time.thread_time() - before
    far_off.cancel()
    assert used < 0.03


def test_waiting_for_less_than_a_millisecond_is_no_spinning(loop):
    """tideway#308: a wait rounded down to nothing burns the processor until the timer is due."""
    remaining = 200

    def again():
        nonlocal remaining
        remaining -= 1
        if remaining:
            loop.call_later(0.0009, again)
        else:
            loop.stop()

    loop.call_later(0.0009, again)
    wall, used = time.monotonic(), time.thread_time()
    loop.run_forever()
    wall, used = time.monotonic() - wall, time.thread_time() - used
    assert wall >= 200 * 0.0009 - 200 * resolution()
    assert used < 0.6 * wall


@pytest.mark.parametrize("delay", [None, 10, 0, -1])
def test_asyncio_timeout_ends_as_on_stock_asyncio(loop, delay):
    """cpython#95051: a timeout of nothing still lets ready callbacks run first, in the order of this Python."""

    def scenario(loop, trace):
        async def body():
            loop.call_soon(trace.append, "soon")
            loop.call_later(0, trace.append, "timer")
            try:
                async with asyncio.timeout(delay) as timeout:
                    trace.append("entered")
                    await asyncio.sleep(0)
                    trace.append("once")
                    await asyncio.sleep(0)
                    trace.append("twice")
                    await asyncio.sleep(0)
                    trace.append("thrice")
            except TimeoutError:
                trace.append("timeout")
            trace.append(str(timeout.expired()))

        loop.run_until_complete(body())
        turns(loop, 2)

    same_trace_as_stock(loop, scenario)


class Moved:
    """A clock that stands still until it is moved. A mixin of loops, and in the place of their `time`."""

    now = 1000.0

    def time(self) -> float:
        return self.now


def when_timers_run(loop, clock):
    """When a loop runs its timers whose clock jumps, in its own seconds: it never has to wait for one."""
    ran = []

    def note(what):
        ran.append((what, loop.time()))

    async def sleeper():
        await asyncio.sleep(3600)
        note("slept")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        note("timed out")
        loop.stop()

    def tick():
        clock.now += 30.0
        if not task.done():
            loop.call_soon(tick)

    later, at = loop.call_later(50, note, "later"), loop.call_at(1030.0, note, "at")
    assert (later.when(), at.when()) == (1050.0, 1030.0)
    loop.call_at(999.0, note, "past")
    never = loop.call_later(10**6, note, "never")
    task = loop.create_task(sleeper())
    loop.call_soon(tick)
    loop.run_forever()
    turns(loop, 2)
    never.cancel()
    return ran


def when_stock_runs_timers():
    class Moving(Moved, asyncio.SelectorEventLoop):
        pass

    loop = Moving()
    try:
        return when_timers_run(loop, loop)
    finally:
        loop.close()


def test_a_time_of_a_subclass_moves_the_scheduler(loop_name, no_leaks):
    class Moving(Moved, loop_class(loop_name)):
        pass

    loop = Moving()
    try:
        assert when_timers_run(loop, loop) == when_stock_runs_timers()
    finally:
        loop.close()


def test_a_time_that_is_put_on_a_loop_moves_the_scheduler(loop):
    before = loop.time()
    clock = Moved()
    loop.time = clock.time
    assert when_timers_run(loop, clock) == when_stock_runs_timers()
    del loop.time
    timer = loop.call_later(0, int)
    assert before <= timer.when() <= loop.time()
    timer.cancel()


def test_a_time_that_is_put_on_the_class_moves_the_scheduler(loop, monkeypatch):
    timer = loop.call_later(5, int)
    timer.cancel()
    clock = Moved()
    monkeypatch.setattr(type(loop), "time", lambda self: clock.time())
    assert when_timers_run(loop, clock) == when_stock_runs_timers()
