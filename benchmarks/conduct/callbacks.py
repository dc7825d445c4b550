"""Checks of callbacks: what they are run in, in which order, and what scheduling them answers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

from benchmarks.conduct.check import CALLS, TASKS, TIMERS, TURNS, Loop, check, demand, expect, run_turns

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


class Argument:
    """Something to which there are weak references."""

    handle: asyncio.Handle

    def method(self) -> None:
        pass


@check()
def handles_are_asyncios(loop: Loop) -> None:
    """`call_soon` and `call_soon_threadsafe` answer an `asyncio.Handle`."""
    for name in ("call_soon", "call_soon_threadsafe"):
        handle = schedule(loop, name, print)
        demand(isinstance(handle, asyncio.Handle), f"{name} answers {described(handle)}")


@check(*CALLS, *TIMERS)
def handles_tell_and_cancel(loop: Loop) -> None:
    """Handles have `cancel`, `cancelled` and a `repr`; what is cancelled does not run."""
    ran: list[str] = []
    for name in WAYS:
        handle = schedule(loop, name, ran.append, "ran")
        demand(handle is not None, f"{name} answers None")
        demand(repr(handle), f"{name}'s handle has no repr")
        expect(handle.cancelled(), False, f"{name}'s handle is cancelled")
        handle.cancel()
        expect(handle.cancelled(), True, f"{name}'s handle is cancelled after cancel()")
        demand(repr(handle), f"{name}'s cancelled handle has no repr")
    run_turns(loop)
    expect(ran, [], "what was cancelled has run")


@check(*CALLS, *TASKS)
def handles_in_cycles_are_collected(loop: Loop) -> None:
    """An object that keeps the handle of a callback of its own is collected when that has run, or was cancelled."""
    references = {}
    for name in ("call_soon", "call_soon_threadsafe"):
        for cancels in (False, True):
            argument = Argument()
            argument.handle = schedule(loop, name, argument.method)
            references[name, cancels] = weakref.ref(argument)
            if cancels:
                argument.handle.cancel()
    del argument
    run_turns(loop)
    gc.collect()
    for (name, cancels), reference in references.items():
        how = "was cancelled" if cancels else "has run"
        demand(reference() is None, f"nothing frees an object with the handle of a {name} of its own that {how}")


@check()
def replaced_run_is_called(loop: Loop) -> None:
    """A tool that has replaced `asyncio.Handle._run` sees each callback."""
    ran: list[str] = []
    stock = vars(asyncio.Handle)["_run"]

    def replaced(handle: asyncio.Handle) -> None:
        ran.append("tool")
        stock(handle)

    asyncio.Handle._run = replaced  # type: ignore[method-assign, assignment]
    loop.call_soon(ran.append, "callback")
    loop.call_soon(loop.stop)
    loop.run_forever()
    expect(ran, ["tool", "callback", "tool"], "who was called")


@check(*CALLS, "timers")
def each_has_its_own_context(loop: Loop) -> None:
    """Each callback runs in a copy, of its own, of the context that was current when it was scheduled."""
    for name in ("call_soon", "call_soon_threadsafe", "call_later"):
        seen: list[str] = []

        def callback(value: str, seen: list[str] = seen) -> None:
            seen.append(VARIABLE.get())
            VARIABLE.set(value)

        arguments: tuple[Any, ...] = (0, callback) if name == "call_later" else (callback,)
        token = VARIABLE.set("before")
        for value in ("first", "second"):
            getattr(loop, name)(*arguments, value)
        VARIABLE.set("after")
        loop.run_until_complete(asyncio.sleep(0.002))
        expect(seen, ["before", "before"], f"what callbacks of {name} saw")
        expect(VARIABLE.get(), "after", f"what a callback of {name} left behind")
        VARIABLE.reset(token)


@check(*CALLS, "timers")
def contexts_are_honoured(loop: Loop) -> None:
    """A callback with a `context` runs in it, and what it sets stays there."""
    for name in ("call_soon", "call_soon_threadsafe", "call_later"):
        context: contextvars.Context = contextvars.copy_context()
        arguments = (0, VARIABLE.set) if name == "call_later" else (VARIABLE.set,)
        getattr(loop, name)(*arguments, name, context=context)
        loop.run_until_complete(asyncio.sleep(0.002))
        expect(context.run(VARIABLE.get), name, f"what the context of {name} has")
        expect(VARIABLE.get(), "unset", f"what {name} with a context left behind")


@check()
def exceptions_are_reported(loop: Loop) -> None:
    """The exception handler hears of a callback that raises, with its handle, and the next one runs."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    ran: list[str] = []
    error = ZeroDivisionError()

    def raising() -> None:
        raise error

    loop.call_soon(raising)
    loop.call_soon(ran.append, "next")
    run_turns(loop)
    expect(ran, ["next"], "what ran behind it")
    expect([report.get("exception") for report in reports], [error], "what the handler was told")
    demand(reports[0].get("handle") is not None, "the handler was not told the handle")


@check(*CALLS, *TIMERS)
def cancelling_lets_go(loop: Loop) -> None:
    """Cancelling frees the callback and its arguments at once."""
    references = {}
    for name in WAYS:
        argument = Argument()
        references[name] = weakref.ref(argument)
        schedule(loop, name, print, argument).cancel()
    del argument
    gc.collect()
    kept = [name for name, reference in references.items() if reference() is not None]
    demand(not kept, f"the arguments of what was cancelled are kept by {', '.join(kept)}")


@check("call_soon_args", "call_soon")
def arguments_are_let_go_of(loop: Loop) -> None:
    """What a callback was given is free when the next one runs."""
    argument = Argument()
    reference = weakref.ref(argument)
    alive: list[bool] = []
    loop.call_soon(lambda _: None, argument)
    loop.call_soon(lambda: alive.append(reference() is not None))
    del argument
    run_turns(loop)
    expect(alive, [False], "whether it was alive then")


@check(*CALLS)
def callbacks_of_a_turn_are_first(loop: Loop) -> None:
    """Callbacks run in the order in which they were scheduled, those that callbacks schedule in the next turn."""
    order: list[int] = []

    def schedule(number: int) -> None:
        order.append(number)
        loop.call_soon(order.append, number + 10)

    for number in range(5):
        loop.call_soon(schedule, number)
    run_turns(loop)
    expect(order, [*range(5), *range(10, 15)], "the order")


@check("call_soon", "call_soon_args")
def cancelled_within_a_turn(loop: Loop) -> None:
    """A callback may cancel a later one of the same turn."""
    ran: list[str] = []
    handles: list[asyncio.Handle] = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(ran.append, "cancelled"))
    run_turns(loop)
    expect(ran, [], "what ran")


@check(*TURNS)
def every_turn_asks_the_kernel(loop: Loop) -> None:
    """A loop that always has something to run asks the kernel in each turn what is ready."""
    is_served_beside_a_chain(loop, loop.call_soon)


@check(same=True)
def what_is_due_runs_behind_what_is_ready(loop: Loop) -> object:
    """In a loop that always has something to run, a timer that is due runs in the next turn, behind what was ready."""
    order: list[object] = []

    def step(index: int) -> None:
        order.append(index)
        if index == 4:
            loop.call_later(0, order.append, "timer")
        if index < 12:
            loop.call_soon(step, index + 1)
        else:
            loop.stop()

    loop.call_soon(step, 0)
    loop.run_forever()
    return order


@check(same=True)
def a_stop_ends_the_turn(loop: Loop) -> object:
    """`stop` lets the turn under way run to its end, and no other."""
    order: list[str] = []

    def stopping() -> None:
        loop.stop()
        loop.call_soon(order.append, "of the next turn")

    loop.call_soon(stopping)
    loop.call_soon(order.append, "of the same turn")
    loop.run_forever()
    before = list(order)
    run_turns(loop)
    return before, order


def is_served_beside_a_chain(loop: Loop, call: Callable[..., object]) -> None:
    """Raises Broken unless a reader hears within three turns of a chain what comes meanwhile, each time of many."""
    late = max(turns_until_served(loop, call) for _ in range(50))
    demand(late < CHAIN, f"a reader heard nothing within {CHAIN:,} turns")
    demand(late <= 3, f"a reader heard of its bytes {late:,} turns late")


# Turns behind which a chain ends: without an end it would hang on a loop that never asks.
CHAIN = 10_000


def turns_until_served(loop: Loop, call: Callable[..., object]) -> int:
    """How many turns of a chain pass, behind the one in which bytes come, until their reader hears of them."""
    near, far = socket.socketpair()
    heard = False
    reached = 0

    def step(late: int) -> None:
        nonlocal reached
        reached = late
        if late == 0:
            far.send(b"x")
        if heard or late == CHAIN:
            loop.stop()
        else:
            call(step, late + 1)

    def hear() -> None:
        nonlocal heard
        heard = near.recv(10) == b"x"

    with near, far:
        loop.add_reader(near.fileno(), hear)
        call(step, -4)
        loop.run_forever()
        loop.remove_reader(near.fileno())
    return reached


# The methods that schedule a callback, and what they are given in front of it.
WAYS: dict[str, Callable[[Loop], tuple[float, ...]]] = {
    "call_soon": lambda loop: (),
    "call_soon_threadsafe": lambda loop: (),
    "call_later": lambda loop: (3600,),
    "call_at": lambda loop: (loop.time() + 3600,),
}


def schedule(loop: Loop, way: str, callback: Any, *arguments: object) -> Any:
    """The handle of a callback that was scheduled in one of the WAYS."""
    return getattr(loop, way)(*WAYS[way](loop), callback, *arguments)


def described(handle: object) -> str:
    return "None" if handle is None else f"a {type(handle).__module__}.{type(handle).__qualname__}"


CHECKS = [
    handles_are_asyncios,
    handles_tell_and_cancel,
    handles_in_cycles_are_collected,
    replaced_run_is_called,
    each_has_its_own_context,
    contexts_are_honoured,
    exceptions_are_reported,
    cancelling_lets_go,
    arguments_are_let_go_of,
    callbacks_of_a_turn_are_first,
    cancelled_within_a_turn,
    every_turn_asks_the_kernel,
    what_is_due_runs_behind_what_is_ready,
    a_stop_ends_the_turn,
]
