"""Context variables: each callback has its own context, whatever is shared underneath to make that cheap."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref

from harness import Recorder, attach, close, run, turns, unix_pair

var: contextvars.ContextVar[object] = contextvars.ContextVar("var", default="unset")


def test_callbacks_scheduled_together_do_not_see_each_other(loop):
    seen = []

    def callback(name):
        seen.append((name, var.get()))
        var.set(name)
        seen.append((name, var.get()))

    for name in "abc":
        loop.call_soon(callback, name)
        loop.call_later(0, callback, name.upper())
    turns(loop, 3)
    assert sorted(seen) == sorted((name, value) for name in "abcABC" for value in ("unset", name))
    assert var.get() == "unset"


def test_a_callback_sees_what_was_set_when_it_was_scheduled(loop):
    seen = []

    def schedule():
        for value in (1, 2, 2, 3):
            var.set(value)
            loop.call_soon(lambda: seen.append(var.get()))
        var.set("later")

    contextvars.copy_context().run(schedule)
    turns(loop)
    assert seen == [1, 2, 2, 3]


def test_a_given_context_is_the_one_that_is_entered(loop):
    context = contextvars.copy_context()
    loop.call_soon(var.set, 1, context=context)
    loop.call_soon(var.set, 2)
    turns(loop)
    assert context[var] == 1


def test_who_asks_for_the_context_of_a_handle_gets_its_own(loop):
    handles = [loop.call_soon(var.set, value) for value in (1, 2)]
    contexts = [handle._context for handle in handles]
    assert contexts[0] is not contexts[1]
    turns(loop)
    assert [context[var] for context in contexts] == [1, 2]
    assert [handle._context for handle in handles] == contexts


def test_running_a_handle_by_hand_leaves_others_alone(loop):
    seen = []
    first = loop.call_soon(var.set, 1)
    loop.call_soon(lambda: seen.append(var.get()))
    first._run()
    first.cancel()
    turns(loop)
    assert seen == ["unset"]


def test_values_are_not_kept_alive_by_the_loop(loop):
    """uvloop#191"""

    class Value:
        pass

    value = Value()
    alive = weakref.ref(value)

    def schedule(value):
        var.set(value)
        loop.call_soon(lambda: None)

    contextvars.copy_context().run(schedule, value)
    del value
    turns(loop, 2)
    gc.collect()
    assert alive() is None


def test_values_go_with_the_last_callback_that_sees_them(loop):
    class Value:
        pass

    def schedule(alive):
        value = Value()
        var.set(value)
        alive.append(weakref.ref(value))
        for name in "ab":
            loop.call_soon(seen.append, name)
        loop.call_soon(chain, 3)

    def chain(left):
        seen.append(left)
        if left:
            loop.call_soon(chain, left - 1)

    def look(left):
        seen.append(("value", alive[0]() is not None))
        if left:
            loop.call_soon(look, left - 1)

    seen, alive = [], []
    contextvars.copy_context().run(schedule, alive)
    loop.call_soon(look, 4)
    turns(loop, 6)
    there, gone = ("value", True), ("value", False)
    assert seen == ["a", "b", 3, there, 2, there, 1, there, 0, gone, gone]


def test_a_chain_of_callbacks_does_not_see_what_the_last_one_set_behind_it(loop):
    seen = []

    def chain(left):
        seen.append(var.get())
        if left % 2:
            loop.call_soon(chain, left - 1)
            var.set(left)
        elif left:
            var.set(left)
            loop.call_soon(chain, left - 1)
        else:
            loop.stop()

    loop.call_soon(chain, 6)
    loop.run_forever()
    assert seen == ["unset", 6, 6, 4, 4, 2, 2]


def test_a_handle_kept_by_its_own_callback_is_collected_after_it_ran(loop):
    class Owner:
        def callback(self):
            pass

    owner = Owner()
    owner.soon = loop.call_soon(owner.callback)
    owner.later = loop.call_later(0, owner.callback)
    owner.cancelled = loop.call_later(1000, owner.callback)
    owner.cancelled.cancel()
    alive = weakref.ref(owner)
    del owner
    turns(loop, 3)
    gc.collect()
    assert alive() is None


def test_a_closed_loop_is_collected_with_what_it_had_scheduled(loop):
    class Value:
        def callback(self):
            pass

    other = type(loop)()
    value = Value()
    value.loop = other
    other.call_soon(value.callback)
    other.call_later(1000, value.callback)
    alive = weakref.ref(value)
    other.close()
    del other, value
    gc.collect()
    assert alive() is None


def test_a_closed_loop_that_a_context_refers_to_is_collected(loop):
    other = type(loop)()
    alive = weakref.ref(other)

    def schedule(value):
        var.set(value)
        value.call_soon(lambda: None)

    contextvars.copy_context().run(schedule, other)
    other.close()
    del other
    gc.collect()
    assert alive() is None


def test_connections_do_not_see_each_others_variables(loop):
    """Each connection reads in a context of its own, which it keeps from one read to the next."""
    seen = []

    class Noting(Recorder):
        def data_received(self, data):
            super().data_received(data)
            seen.append((self, var.get()))
            var.set(self)

    connections = []
    for _ in range(3):
        near, far = unix_pair()
        connections.append((*attach(loop, near, Noting), far))
    for times in (1, 2):
        for _, protocol, far in connections:
            far.send(b"x")
            run(loop, protocol.wait_received(times))
    protocols = [protocol for _, protocol, _ in connections]
    assert seen == [(protocol, "unset") for protocol in protocols] + [(protocol, protocol) for protocol in protocols]
    for transport, _, far in connections:
        close(loop, transport)
        far.close()


def test_values_of_readers_go_with_their_connections(loop):
    """What a variable held when a connection began to read is let go of with the connection, not with the loop."""

    class Value:
        pass

    value = Value()
    gone = weakref.ref(value)
    near, far = unix_pair()

    async def connect(value):
        var.set(value)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        return transport

    transport = run(loop, connect(value))
    del value
    close(loop, transport)
    del transport
    gc.collect()
    assert gone() is None
    far.close()
