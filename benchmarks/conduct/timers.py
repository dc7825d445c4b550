"""Checks of timers and of the loop's clock."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
import weakref
from itertools import pairwise
from pathlib import Path

from benchmarks.conduct.callbacks import WAYS, Argument, described, schedule
from benchmarks.conduct.check import CALLS, TIMERS, Loop, check, demand, expect, from_callback, run, run_turns


@check()
def timer_handles_are_asyncios(loop: Loop) -> None:
    """`call_later` and `call_at` answer an `asyncio.TimerHandle`."""
    for name in ("call_later", "call_at"):
        handle = schedule(loop, name, print)
        demand(isinstance(handle, asyncio.TimerHandle), f"{name} answers {described(handle)}")


@check(*TIMERS)
def timers_in_cycles_are_collected(loop: Loop) -> None:
    """An object that keeps the timer of one of its methods is collected when that has run, or was cancelled."""
    references = {}
    for cancels in (False, True):
        argument = Argument()
        argument.handle = loop.call_later(3600 if cancels else 0, argument.method)
        references[cancels] = weakref.ref(argument)
        if cancels:
            argument.handle.cancel()
    del argument
    loop.run_until_complete(asyncio.sleep(0.002))
    gc.collect()
    for cancels, reference in references.items():
        how = "was cancelled" if cancels else "has run"
        demand(reference() is None, f"nothing frees an object with a timer of its own that {how}")


@check("timers")
def timers_run_by_their_times(loop: Loop) -> None:
    """Timers run in the order of their times, be these a microsecond apart."""
    count = 500
    order: list[int] = []
    start = loop.time()
    for index in range(count):
        place = index * 7919 % count
        loop.call_at(start + place * 1e-6, order.append, place)
    loop.call_at(start + 0.01, loop.stop)
    loop.run_forever()
    demand(len(order) == count, f"{len(order)} of {count} have run")
    late = sum(1 for one, next_one in pairwise(order) if one > next_one)
    demand(not late, f"{late} of {count} ran behind a later one")


@check("timers")
def never_early(loop: Loop) -> None:
    """A timer never runs before its delay is over."""
    resolution = time.get_clock_info("monotonic").resolution
    early: list[float] = []

    def due(when: float) -> None:
        left = when - time.monotonic()
        if left > resolution:
            early.append(left)

    for index in range(200):
        delay = index * 0.000_173
        # The clock is read before the loop reads its own: what is early is so by any reading.
        loop.call_later(delay, due, time.monotonic() + delay)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    demand(not early, f"{len(early)} of 200 were early, by up to {max(early, default=0) * 1e6:,.0f} µs")


@check(*TIMERS)
def the_clock_goes_on(loop: Loop) -> None:
    """`loop.time()` goes as `time.monotonic()` does, also late in a long callback."""

    def compare() -> None:
        started = time.monotonic()
        first = loop.time()
        shift = first - time.monotonic(), first - started
        for _ in range(3):
            compute(0.005)
            before = time.monotonic()
            told = loop.time()
            after = time.monotonic()
            apart = max(before + shift[0] - told, told - after - shift[1], 0)
            # What adding and subtracting seconds loses.
            demand(apart < 1e-6, f"it is {apart * 1e6:,.0f} µs off")

    run(loop, from_callback(compare))


@check()
def the_clock_is_the_systems(loop: Loop) -> None:
    """`loop.time()` is `time.monotonic()`."""
    before = time.monotonic()
    told = loop.time()
    after = time.monotonic()
    demand(before <= told <= after, f"it is {told:.6f} at {before:.6f}")


@check(*TIMERS)
def delays_count_from_the_call(loop: Loop) -> None:
    """The delay of `call_later` begins with the call, also late in a long callback."""

    def late() -> None:
        compute(0.02)
        loop.call_later(0.01, call, time.monotonic())

    ran: list[float] = []

    def call(before: float) -> None:
        ran.append(time.monotonic() - before)
        loop.stop()

    loop.call_soon(late)
    loop.run_forever()
    demand(ran and ran[0] >= 0.01, f"10 ms were {ran[0] * 1000:.1f} ms" if ran else "the timer did not run")


@check(*TIMERS)
def when_is_what_was_asked(loop: Loop) -> None:
    """`TimerHandle.when()` is the time that was asked for, on the clock of `loop.time()`."""
    when = loop.time() + 12.345678
    handle = loop.call_at(when, print)
    expect(handle.when(), when, "when() of call_at")
    before = loop.time()
    later = loop.call_later(10, print)
    demand(
        before + 10 <= later.when() <= loop.time() + 10, f"when() of call_later is {later.when() - before:.6f} s off"
    )
    handle.cancel()
    later.cancel()


@check("call_later_cancel")
def cancelled_timers_are_forgotten(loop: Loop) -> None:
    """A loop does not grow by timers that are set and cancelled, whenever they would have been due."""

    def rounds(count: int) -> int:
        for _ in range(count):
            for _ in range(10_000):
                loop.call_later(3600, print, None).cancel()
            run_turns(loop, 2)
        return resident_bytes()

    before = rounds(5)
    grown = rounds(10) - before
    demand(grown < 3_000_000, f"100,000 of them took {grown / 1e6:.1f} MB for good")


@check(*TIMERS)
def cancelled_by_another_timer(loop: Loop) -> None:
    """A timer that is due may be cancelled by another one of the same turn."""
    ran: list[str] = []
    start = loop.time()
    handles: list[asyncio.TimerHandle] = []
    loop.call_at(start, lambda: handles[0].cancel())
    handles.append(loop.call_at(start + 1e-9, ran.append, "cancelled"))
    loop.call_later(0.005, loop.stop)
    compute(0.002)
    loop.run_forever()
    expect(ran, [], "what ran")


@check(same=True)
def a_delay_of_nothing_is_a_timer(loop: Loop) -> object:
    """`call_later(0)` runs behind what is ready already, in the next turn."""
    order: list[str] = []

    def schedule() -> None:
        loop.call_later(0, order.append, "timer")
        loop.call_soon(order.append, "callback")
        loop.call_later(-1, order.append, "earlier timer")

    loop.call_soon(schedule)
    run_turns(loop)
    return order


@check(*CALLS, *TIMERS)
def a_closed_loop_refuses(loop: Loop) -> None:
    """A loop that is closed refuses callbacks, timers and calls of other threads by a RuntimeError."""
    loop.close()
    for name in WAYS:
        try:
            schedule(loop, name, print)
        except RuntimeError:
            pass
        else:
            demand(False, f"{name} does not raise")


@check()
def a_closed_loop_lets_go(loop: Loop) -> None:
    """A loop that is closed lets go of what was scheduled and has not run."""
    references = {}
    for name in WAYS:
        argument = Argument()
        argument.handle = schedule(loop, name, argument.method)
        references[name] = weakref.ref(argument)
    del argument
    loop.close()
    gc.collect()
    kept = [name for name, reference in references.items() if reference() is not None]
    demand(not kept, f"it keeps what was scheduled by {', '.join(kept)}")


def compute(seconds: float) -> None:
    """Does nothing useful for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def resident_bytes() -> int:
    """The resident set of this process."""
    return int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1]) * resource.getpagesize()


CHECKS = [
    timer_handles_are_asyncios,
    timers_in_cycles_are_collected,
    timers_run_by_their_times,
    never_early,
    the_clock_goes_on,
    the_clock_is_the_systems,
    delays_count_from_the_call,
    when_is_what_was_asked,
    cancelled_timers_are_forgotten,
    cancelled_by_another_timer,
    a_delay_of_nothing_is_a_timer,
    a_closed_loop_refuses,
    a_closed_loop_lets_go,
]
