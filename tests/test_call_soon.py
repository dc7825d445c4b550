"""call_soon: order, arguments, contexts, and what a callback may do."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref

import pytest

from harness import same_trace_as_stock, turns

WORD = contextvars.ContextVar("WORD", default="none")


class Thing:
    """Something that a weak reference can be taken of."""


def test_runs_in_the_order_of_the_calls(loop):
    seen = []
    for number in range(1000):
        loop.call_soon(seen.append, number)
    turns(loop)
    assert seen == list(range(1000))


def test_passes_no_one_and_many_arguments(loop):
    seen = []
    loop.call_soon(lambda *args: seen.append(args))
    loop.call_soon(lambda *args: seen.append(args), 1)
    loop.call_soon(lambda *args: seen.append(args), *range(50))
    turns(loop)
    assert seen == [(), (1,), tuple(range(50))]


def test_returns_a_real_handle(loop):
    handle = loop.call_soon(print)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    handle.cancel()


def test_what_a_callback_schedules_waits_for_the_next_turn(loop):
    seen = []

    def first():
        seen.append("first")
        loop.call_soon(seen.append, "nested")
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.call_soon(seen.append, "second")
    loop.run_forever()
    assert seen == ["first", "second", "nested"]


def test_the_context_is_the_one_of_the_call_and_not_of_the_run(loop):
    """A copy that is put off until the callback runs must not see what was set in between."""
    seen = []
    token = WORD.set("at the call")
    try:
        loop.call_soon(lambda: seen.append(WORD.get()))
        WORD.set("after the call")
        loop.call_soon(lambda: seen.append(WORD.get()))
    finally:
        WORD.reset(token)
    turns(loop)
    assert seen == ["at the call", "after the call"]


def test_two_callbacks_do_not_share_a_context(loop):
    seen = []

    def write(word):
        seen.append(WORD.get())
        WORD.set(word)

    loop.call_soon(write, "one")
    loop.call_soon(write, "two")
    turns(loop)
    assert seen == ["none", "none"]
    assert WORD.get() == "none"


def test_what_a_callback_schedules_inherits_its_context(loop):
    seen = []

    def outer():
        WORD.set("outer")
        loop.call_soon(lambda: seen.append(WORD.get()))
        WORD.set("changed")
        loop.call_later(0, lambda: seen.append(WORD.get()))

    loop.call_soon(outer)
    turns(loop, 3)
    assert seen == ["outer", "changed"]


def test_a_given_context_is_used_itself(loop):
    context = contextvars.copy_context()
    loop.call_soon(WORD.set, "written", context=context)
    turns(loop)
    assert context[WORD] == "written"


def test_none_as_context_means_a_copy(loop):
    seen = []
    loop.call_soon(lambda: seen.append(WORD.get()), context=None)
    turns(loop)
    assert seen == ["none"]


def test_a_context_that_is_entered_already_is_reported(loop):
    def scenario(loop, trace):
        context = contextvars.copy_context()
        loop.call_soon(trace.append, "never", context=context)
        loop.call_soon(loop.stop)
        context.run(loop.run_forever)
        trace.append("ended")

    trace = same_trace_as_stock(loop, scenario)
    assert trace[-1] == "ended"
    assert "never" not in trace


def test_callback_and_arguments_are_let_go_once_it_ran(loop):
    """uvloop#191: nothing of a callback that ran may stay, with the collector off."""
    thing = Thing()
    gone = weakref.ref(thing)

    def callback(argument):
        assert argument is not None

    callback_gone = weakref.ref(callback)
    gc.disable()
    try:
        loop.call_soon(callback, thing)
        del thing, callback
        turns(loop)
        assert gone() is None
        assert callback_gone() is None
    finally:
        gc.enable()


def test_the_context_copy_is_let_go_once_it_ran(loop):
    """uvloop#191, uvloop#192: one copy of the context a call must not pile up."""
    thing = Thing()
    gone = weakref.ref(thing)

    def schedule():
        WORD.set(thing)  # noqa: F821
        loop.call_soon(int)

    gc.disable()
    try:
        contextvars.copy_context().run(schedule)
        turns(loop)
        del thing, schedule
        assert gone() is None
    finally:
        gc.enable()


def test_a_handle_that_is_kept_lets_its_context_go_with_itself(loop):
    thing = Thing()
    gone = weakref.ref(thing)
    context = contextvars.copy_context()
    context.run(WORD.set, thing)
    handle = loop.call_soon(int, context=context)
    turns(loop)
    del thing, context, handle
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError, asyncio.CancelledError, GeneratorExit, BaseException])
def test_an_exception_goes_to_the_handler_and_the_turn_goes_on(loop, error):
    """uvloop#337"""

    def scenario(loop, trace):
        def fail():
            trace.append("fail")
            raise error("text")

        loop.call_soon(fail)
        loop.call_soon(trace.append, "next")
        turns(loop)

    assert same_trace_as_stock(loop, scenario)[-1] == "next"


def test_the_report_of_an_exception_has_the_handle(loop, unhandled):
    def fail():
        raise ZeroDivisionError

    handle = loop.call_soon(fail)
    turns(loop)
    report = unhandled.pop()
    assert report["handle"] is handle
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["message"].startswith("Exception in callback ")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_leave_run_forever(loop, error):
    """uvloop#337: what was ready behind the callback runs in the next run."""
    seen = []

    def leave():
        raise error("text")

    loop.call_soon(leave)
    loop.call_soon(seen.append, "behind")
    with pytest.raises(error, match="text"):
        loop.run_forever()
    assert not loop.is_running()
    turns(loop)
    assert seen == ["behind"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_leave_run_until_complete(loop, error):
    """uvloop#337"""

    async def wait():
        await loop.create_future()

    task = loop.create_task(wait())

    def leave():
        raise error("text")

    loop.call_soon(leave)
    with pytest.raises(error, match="text"):
        loop.run_until_complete(task)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_an_exception_of_the_exception_handler_is_logged(loop, caplog):
    def handler(loop, context):
        raise ValueError("the handler")

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    turns(loop)
    assert "Unhandled error in exception handler" in caplog.text
    assert "the handler" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_of_the_exception_handler_leave_the_loop(loop, error):
    def handler(loop, context):
        raise error

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(error):
        loop.run_forever()


def test_a_chain_of_calls_does_not_starve_a_timer(loop):
    """zuvloop#83"""
    fired = []

    def chain():
        if not fired:
            loop.call_soon(chain)

    loop.call_soon(chain)
    loop.call_later(0.001, fired.append, True)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert fired == [True]


def test_a_chain_of_calls_does_not_starve_a_reader(loop, unix):
    """zuvloop#83"""
    near, far = unix
    fired = []

    def chain():
        if fired:
            loop.stop()
        else:
            loop.call_soon(chain)

    def readable():
        fired.append(near.recv(1))

    loop.add_reader(near, readable)
    loop.call_soon(chain)
    loop.call_soon(far.send, b"x")
    loop.run_forever()
    loop.remove_reader(near)
    assert fired == [b"x"]


def test_ready_tells_how_many_callbacks_wait(loop):
    """uvloop#721: health checks read `len(loop._ready)`."""
    loop.call_soon(int)
    loop.call_soon(int)
    assert len(loop._ready) == 2
    turns(loop)
    assert len(loop._ready) == 0
