"""Handles: real ones of asyncio, that may be cancelled, kept, patched and looked at at any time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
import weakref

import pytest

from harness import normalised, same_trace_as_stock, stock_loop, turns

var: contextvars.ContextVar[object] = contextvars.ContextVar("var", default="unset")


class Value:
    pass


@pytest.fixture(params=["call_soon", "call_later", "call_at", "call_soon_threadsafe"])
def schedule(request, loop):
    """One of the calls that give a handle, in the shape of call_soon."""
    return {
        "call_soon": lambda loop, *args, **options: loop.call_soon(*args, **options),
        "call_later": lambda loop, *args, **options: loop.call_later(0, *args, **options),
        "call_at": lambda loop, *args, **options: loop.call_at(loop.time() - 1, *args, **options),
        "call_soon_threadsafe": lambda loop, *args, **options: loop.call_soon_threadsafe(*args, **options),
    }[request.param]


def test_a_cancelled_callback_does_not_run(loop, schedule):
    seen = []
    handle = schedule(loop, seen.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    handle.cancel()
    turns(loop, 2)
    assert seen == []


def test_cancelling_lets_callback_and_arguments_go(loop, schedule):
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    handle = schedule(loop, print, thing)
    del thing
    handle.cancel()
    assert gone() is None
    assert handle._callback is None
    assert handle._args is None
    turns(loop, 2)


def test_a_callback_may_cancel_its_own_handle(loop, schedule):
    """uvloop#76, uvloop#83, zuvloop#64"""
    seen = []

    def callback(*args):
        handle.cancel()
        seen.append((handle.cancelled(), args))

    handle = schedule(loop, callback, "argument")
    turns(loop, 2)
    assert seen == [(True, ("argument",))]


def test_a_callback_may_cancel_the_next_one_of_the_turn(loop):
    def scenario(loop, trace):
        handles = []
        loop.call_soon(lambda: handles[0].cancel())
        handles.append(loop.call_soon(trace.append, "cancelled"))
        loop.call_soon(trace.append, "behind")
        turns(loop)

    assert same_trace_as_stock(loop, scenario) == ["behind"]


def test_cancelling_after_the_run_is_harmless(loop, schedule):
    """uvloop#76, uvloop#83"""
    handle = schedule(loop, int)
    turns(loop, 2)
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    turns(loop)


def test_when_after_the_run_and_after_cancelling(loop):
    """uvloop#83: reading a timer that is over must not crash."""
    fired, cancelled = loop.call_later(0, int), loop.call_later(1000, int)
    whens = fired.when(), cancelled.when()
    cancelled.cancel()
    turns(loop, 2)
    assert (fired.when(), cancelled.when()) == whens


def test_a_handle_of_another_run_is_not_reused_while_it_is_held(loop):
    """A free list must not give out a handle that somebody still holds."""
    held = [loop.call_soon(int) for _ in range(100)]
    turns(loop)
    seen = []
    new = [loop.call_soon(seen.append, number) for number in range(100)]
    assert not {id(handle) for handle in held} & {id(handle) for handle in new}
    for handle in held:
        handle.cancel()
    turns(loop)
    assert seen == list(range(100))


def test_a_replaced_run_method_is_called(loop, schedule, monkeypatch):
    """logfire#2186: tools that time callbacks replace `asyncio.events.Handle._run`."""
    seen, ran = [], []
    run = asyncio.events.Handle._run

    def watched(handle):
        seen.append(handle._callback)
        run(handle)

    monkeypatch.setattr(asyncio.events.Handle, "_run", watched)
    schedule(loop, ran.append, 1)
    turns(loop, 2)
    assert ran == [1]
    assert any(getattr(callback, "__self__", None) is ran for callback in seen)
    monkeypatch.undo()
    seen.clear()
    schedule(loop, ran.append, 2)
    turns(loop, 2)
    assert (ran, seen) == ([1, 2], [])


def test_a_run_method_that_a_callback_replaces_is_called_for_the_next_one(loop, monkeypatch):
    seen = []
    run = asyncio.events.Handle._run

    def watched(handle):
        seen.append(handle._args)
        run(handle)

    loop.call_soon(monkeypatch.setattr, asyncio.events.Handle, "_run", watched)
    loop.call_soon(seen.append, "ran")
    turns(loop)
    assert seen[:2] == [("ran",), "ran"]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_the_handle_of_a_callback_that_failed_is_whole(loop, method):
    def fail(argument):
        var.set(argument)
        raise ValueError(argument)

    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context["handle"]))
    for argument in "ab":
        getattr(loop, method)(fail, argument)
    loop.call_soon(lambda: None)
    turns(loop)
    assert [(handle._callback, handle._args, handle._context[var]) for handle in told] == [
        (fail, ("a",), "a"),
        (fail, ("b",), "b"),
    ]


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_an_instance_of_a_class_below_is_freed_with_what_it_holds(loop, method):
    kind = type(getattr(loop, method)(*((0, print) if method == "call_later" else (print,))))

    class Below(kind):
        def __del__(self):
            freed.append(self.own)

    freed = []
    value = Value()
    alive = weakref.ref(value)
    handle = Below(*((1.0,) if method == "call_later" else ()), print, (value,), loop)
    handle.own = value
    del value, handle
    assert len(freed) == 1
    freed.clear()
    assert alive() is None


def test_a_replaced_cancel_method_is_called(loop, schedule, monkeypatch):
    """Tools that follow callbacks replace methods of `asyncio.Handle`."""
    seen, ran = [], []
    cancel = asyncio.events.Handle.cancel

    def watched(handle):
        seen.append(handle)
        cancel(handle)

    monkeypatch.setattr(asyncio.events.Handle, "cancel", watched)
    handle = schedule(loop, ran.append, 1)
    handle.cancel()
    assert seen == [handle]
    assert handle.cancelled()
    monkeypatch.undo()
    schedule(loop, ran.append, 2).cancel()
    turns(loop, 2)
    assert (ran, seen) == ([], [handle])


@pytest.mark.parametrize("of_the_class", [False, True])
def test_a_loop_is_told_of_a_cancelled_timer(loop, monkeypatch, of_the_class):
    # Not only a loop that had its own method from the beginning.
    loop.call_later(1e6, int).cancel()
    told = []
    if of_the_class:
        monkeypatch.setattr(type(loop), "_timer_handle_cancelled", lambda _, timer: told.append(timer))
    else:
        monkeypatch.setattr(loop, "_timer_handle_cancelled", told.append)
    timer = loop.call_later(1e6, int)
    timer.cancel()
    timer.cancel()
    assert told == [timer]
    monkeypatch.undo()
    loop.call_later(1e6, int).cancel()
    assert told == [timer]


@pytest.mark.parametrize("of_the_class", [False, True])
def test_a_cancelled_handle_asks_the_loop_whether_it_is_in_debug_mode(loop, monkeypatch, of_the_class):
    """In which it keeps what it looked like."""
    loop.call_soon(int).cancel()
    if of_the_class:
        monkeypatch.setattr(type(loop), "get_debug", lambda _: True)
    else:
        monkeypatch.setattr(loop, "get_debug", lambda: True)
    handle = loop.call_soon(sorted)
    handle.cancel()
    assert "sorted" in repr(handle)
    monkeypatch.undo()
    handle = loop.call_soon(sorted)
    handle.cancel()
    assert "sorted" not in repr(handle)


def test_handles_that_are_used_again_are_like_new(loop):
    """A cancelled, a referenced and a plain handle leave nothing behind for the next ones."""
    number = contextvars.ContextVar("number")
    kept = []
    for value in range(20):
        number.set(value)
        loop.call_soon(int).cancel()
        kept.append(loop.call_soon(int))
        loop.call_soon(lambda: kept.append(number.get()))
        turns(loop)
    assert [item for item in kept if isinstance(item, int)] == list(range(20))
    handles = [item for item in kept if not isinstance(item, int)]
    assert len(set(map(id, handles))) == 20
    fresh = loop.call_soon(int)
    assert not fresh.cancelled()
    assert (fresh._callback, fresh._args, fresh._loop) == (int, (), loop)
    turns(loop)


@pytest.fixture(params=["call_soon", "call_soon_threadsafe"])
def drop(request, loop):
    """Schedules a callback and drops its handle, as most programs do."""

    def drop(*args, **options):
        getattr(loop, request.param)(*args, **options)

    return drop


def test_a_handle_that_was_dropped_is_there_for_who_looks_at_the_queue(loop, drop):
    seen = []
    context = contextvars.copy_context()
    context.run(var.set, "given")
    for number in range(5):
        drop(seen.append, number)
    drop(lambda: seen.append(var.get()), context=context)
    first, second = list(loop._ready), list(loop._ready)
    assert len({type(handle) for handle in first}) == 1
    assert all(isinstance(handle, asyncio.Handle) for handle in first)
    assert [id(handle) for handle in first] == [id(handle) for handle in second]
    assert [handle._args for handle in first] == [(0,), (1,), (2,), (3,), (4,), ()]
    assert first[5]._context is context
    first[2].cancel()
    turns(loop)
    assert seen == [0, 1, 3, 4, "given"]


def test_a_handle_that_was_dropped_is_run_by_a_replaced_method(loop, drop, monkeypatch):
    run, ran, seen = asyncio.Handle._run, [], []
    for number in range(3):
        drop(seen.append, number)

    def replaced(handle):
        ran.append(handle._args)
        run(handle)

    monkeypatch.setattr(asyncio.Handle, "_run", replaced)
    turns(loop)
    assert seen == [0, 1, 2]
    assert set(ran) >= {(0,), (1,), (2,)}


def test_a_handle_that_was_dropped_before_debug_mode_is_run_in_it(loop, drop):
    seen = []
    for _ in range(3):
        drop(lambda: seen.append(loop._current_handle))
    loop.set_debug(True)
    turns(loop)
    loop.set_debug(False)
    assert len({id(handle) for handle in seen}) == 3
    assert [handle._source_traceback for handle in seen] == [None, None, None]


def test_each_callback_has_a_context_of_its_own_though_handles_are_dropped(loop, drop):
    seen = []

    def change(number):
        seen.append(var.get())
        var.set(number)

    for number in range(4):
        drop(change, number)
    turns(loop)
    assert seen == ["unset"] * 4


def test_a_handle_that_is_kept_is_nobody_elses(loop, drop):
    seen = []
    kept = []
    for number in range(4):
        kept.append(loop.call_soon(seen.append, number))
        drop(seen.append, -number)
    kept[1].cancel()
    assert len({id(handle) for handle in kept}) == 4
    assert [handle._args for handle in kept] == [(0,), None, (2,), (3,)]
    turns(loop)
    assert seen == [0, 0, -1, 2, -2, 3, -3]


def test_the_handle_of_a_dropped_callback_that_failed_is_whole(loop, drop, unhandled):
    context = contextvars.copy_context()
    for number in range(3):
        drop(int, f"x{number}", context=context)
    turns(loop)
    handles = [told["handle"] for told in unhandled]
    unhandled.clear()
    assert [(handle._callback, handle._args) for handle in handles] == [(int, ("x0",)), (int, ("x1",)), (int, ("x2",))]
    assert all(handle._context is context and not handle.cancelled() for handle in handles)


def test_a_cycle_through_dropped_callbacks_is_collected(new_loop):
    loop = new_loop()
    thing = Value()
    thing.loop = loop
    gone = weakref.ref(thing)
    for _ in range(3):
        loop.call_soon(print, thing)
    del loop, thing
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert gone() is None


def test_get_context_is_the_context_of_the_run(loop, schedule):
    if not hasattr(asyncio.Handle, "get_context"):
        assert not hasattr(loop.call_soon(int), "get_context")
        turns(loop)
        return
    word = contextvars.ContextVar("word")
    handle = schedule(loop, word.set, "written")
    context = handle.get_context()
    assert isinstance(context, contextvars.Context)
    assert handle.get_context() is context
    turns(loop, 2)
    assert context[word] == "written"


def test_get_context_is_the_context_given(loop, schedule):
    if not hasattr(asyncio.Handle, "get_context"):
        assert not hasattr(loop.call_soon(int), "get_context")
        turns(loop)
        return
    context = contextvars.copy_context()
    handle = schedule(loop, int, context=context)
    assert handle.get_context() is context
    turns(loop, 2)


def callback(*args):
    """Something with a name for the texts below."""


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
@pytest.mark.parametrize("state", ["waiting", "cancelled", "over"])
def test_repr_is_that_of_stock_asyncio(loop, schedule, debug, state):
    def text(loop):
        loop.set_debug(debug)
        handle = schedule(loop, callback, 1, "two")
        if state == "cancelled":
            handle.cancel()
        found = repr(handle) if state != "over" else ""
        turns(loop, 2)
        found = found or repr(handle)
        return normalised(found).split(" when=")[0].replace("_ThreadSafeHandle", "Handle")

    with stock_loop() as stock:
        expected = text(stock)
    assert text(loop) == expected


def test_repr_of_a_timer_tells_its_time(loop):
    handle = loop.call_at(123456.5, callback)
    assert "when=123456.5" in repr(handle)
    assert "callback()" in repr(handle)
    handle.cancel()


def test_is_weakly_referenced_and_gone_after_the_run(loop, schedule):
    """zuvloop: handles take weak references."""
    handle = schedule(loop, int)
    gone = weakref.ref(handle)
    assert gone() is handle
    del handle
    gc.disable()
    try:
        turns(loop, 2)
        assert gone() is None
    finally:
        gc.enable()


def test_a_cycle_through_a_handle_is_collected(new_loop):
    """The collector sees through handle, loop and callback."""

    class Owner:
        def __init__(self, loop):
            self.loop = loop
            self.timer = loop.call_later(1e6, self.tick)
            self.soon = loop.call_soon(self.tick)

        def tick(self):
            pass

    loop = new_loop()
    owner = Owner(loop)
    gone = weakref.ref(owner)
    loop.close()
    del loop, owner
    gc.collect()
    assert gone() is None


def test_pickling_is_refused(loop, schedule):
    handle = schedule(loop, int)
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        pickle.dumps(handle)
    turns(loop, 2)


def test_source_traceback_is_kept_in_debug_mode_only(loop, schedule):
    assert schedule(loop, int)._source_traceback is None
    loop.set_debug(True)
    traceback = schedule(loop, int)._source_traceback
    assert traceback[-1].filename == __file__
    loop.set_debug(False)
    turns(loop, 2)


def test_a_handle_made_by_hand_can_be_run(loop):
    """asyncio.Handle is public: libraries make their own."""
    seen = []
    asyncio.Handle(seen.append, (1,), loop)._run()
    timer = asyncio.TimerHandle(5, seen.append, (2,), loop)
    timer._run()
    timer.cancel()
    assert seen == [1, 2]
