"""Lifetime: references, the collector, weak references, and the end of the interpreter."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import sys
import weakref

import pytest

from harness import Recorder, attach, close, python, run, turns, unix_pair


def test_a_loop_can_be_weakly_referenced_and_is_freed(new_loop):
    loop = new_loop()
    turns(loop)
    loop.close()
    gone = weakref.ref(loop)
    assert gone() is loop
    del loop
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", ["unused", "run", "threads"])
def test_a_closed_loop_is_freed_without_the_collector(new_loop, kind):
    # As anyio's own suite wants it: one collection, while a thread still has the loop, must not be all that frees it.
    gc.collect()
    gc.disable()
    try:
        loop = new_loop()
        if kind == "run":
            turns(loop)
        elif kind == "threads":
            run(loop, loop.run_in_executor(None, int))
            run(loop, loop.shutdown_default_executor())
        loop.close()
        gone = weakref.ref(loop)
        del loop
        assert gone() is None
    finally:
        gc.enable()


def test_transports_and_servers_can_be_weakly_referenced(loop, connection):
    transport, _, _ = connection
    assert weakref.ref(transport)() is transport
    server = run(loop, loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    assert weakref.ref(server)() is server
    server.close()
    run(loop, server.wait_closed())


def test_a_closed_transport_lets_go_of_its_protocol_and_itself(loop, no_leaks):
    gc.collect()
    gc.disable()
    try:
        near, far = unix_pair()
        transport, protocol = attach(loop, near)
        lost = protocol.lost
        protocol.transport = None
        gone = weakref.ref(transport), weakref.ref(protocol)
        transport.close()
        turns(loop, 3)
        assert lost.done()
        del transport, protocol, lost, near
        far.close()
    finally:
        gc.enable()
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_loop_whose_task_factory_refers_to_it_is_collected(new_loop):
    def factory_of(loop):
        return lambda _, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options)

    loop = new_loop()
    loop.set_task_factory(factory_of(loop))
    assert run(loop, asyncio.sleep(0, "through the factory")) == "through the factory"
    loop.close()
    gone = weakref.ref(loop), weakref.ref(loop.get_task_factory())
    del loop
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_cycles_through_transports_are_collected(loop, no_leaks):
    references = []
    for _ in range(10):
        near, far = unix_pair()
        transport, protocol = attach(loop, near)
        protocol.cycle = transport, loop
        references.append(weakref.ref(protocol))
        close(loop, transport)
        far.close()
        del transport, protocol, near, far
    gc.collect()
    assert [reference() for reference in references] == [None] * 10


def test_collecting_in_callbacks_is_harmless(loop, unix):
    """uvloop#706: the collector runs while the loop is in the middle of something."""
    near, far = unix

    class Collecting(Recorder):
        def data_received(self, data):
            gc.collect()
            super().data_received(data)

        def connection_lost(self, exc):
            gc.collect()
            super().connection_lost(exc)
            self.transport = None
            gc.collect()

    transport, protocol = attach(loop, near, Collecting)
    for number in range(5):
        far.send(b"x")
        loop.call_soon(gc.collect)
        run(loop, protocol.wait_received(number + 1))
    transport.close()
    del transport
    run(loop, protocol.lost)


@pytest.mark.parametrize("what", ["loop", "transport"])
def test_pickling_is_refused(loop, connection, what):
    thing = loop if what == "loop" else connection[0]
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        pickle.dumps(thing)


def test_reference_counts_stay_flat(loop, unix):
    """Nothing of a callback, a timer, a task or a message is counted once too often, or once too little."""
    near, far = unix
    transport, protocol = attach(loop, near)
    watched = [None, (), b"", int, loop, transport, protocol]

    async def work():
        for _ in range(200):
            loop.call_soon(int)
            loop.call_later(0, int)
            loop.call_later(1000, int).cancel()
            transport.write(b"x")
            far.send(b"y")
            size = len(protocol.received)
            await protocol.wait_received(size + 1)
            far.recv(1)

    run(loop, work())
    gc.collect()
    before = [sys.getrefcount(thing) for thing in watched]
    for _ in range(3):
        run(loop, work())
    gc.collect()
    after = [sys.getrefcount(thing) for thing in watched]
    assert all(abs(now - then) < 150 for now, then in zip(after, before, strict=True)), (before, after)
    close(loop, transport)


SCRIPTS = {
    "live transports": """
        import asyncio, socket
        loop = new_loop()
        async def main():
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            connections = [await asyncio.open_connection(*server.sockets[0].getsockname()) for _ in range(5)]
            connections[0][1].write(bytes(10_000_000))
            return server, connections
        kept = loop.run_until_complete(main())
        print("end", flush=True)
    """,
    "a running loop": """
        import sys
        loop = new_loop()
        def leave():
            print("end", flush=True)
            sys.exit(0)
        loop.call_later(1000, int)
        loop.call_soon(leave)
        loop.run_forever()
    """,
    "os._exit in a callback": """
        import os
        loop = new_loop()
        loop.call_soon(lambda: (print("end", flush=True), os._exit(0)))
        loop.run_forever()
    """,
    "use in atexit": """
        import asyncio, atexit
        def last():
            loop = new_loop()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            print("end", flush=True)
        atexit.register(last)
    """,
    "a loop in a daemon thread": """
        import threading
        started = threading.Event()
        def target():
            loop = new_loop()
            loop.call_soon(started.set)
            loop.run_forever()
        threading.Thread(target=target, daemon=True).start()
        started.wait()
        print("end", flush=True)
    """,
    "finalisers that use the loop": """
        loop = new_loop()
        class Last:
            def __del__(self):
                try:
                    loop.call_soon(int)
                except RuntimeError:
                    pass
        kept = Last()
        loop.call_soon(loop.stop)
        loop.call_later(1000, int, kept)
        loop.run_forever()
        loop.close()
        print("end", flush=True)
    """,
    "a loop that the very end collects": """
        import gc, warnings
        warnings.simplefilter("ignore")  # of loops that nobody has closed
        gc.disable()
        class Cycle:
            pass
        kept = Cycle()
        kept.kept, kept.loop = kept, new_loop()
        del kept
        print("end", flush=True)
    """,
    "a closed loop with a pending task": """
        import asyncio
        loop = new_loop()
        task = loop.create_task(asyncio.Event().wait())
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        print("end", flush=True)
    """,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_interpreter_ends_without_a_crash(loop_name, script):
    """uvloop#706, uvloop#538, untether#599: no signal, and no "Event loop is closed" from a finaliser."""
    ended = python(SCRIPTS[script], factory=loop_name)
    assert (ended.returncode, ended.stdout) == (0, "end\n")
    assert "Event loop is closed" not in ended.stderr
    assert "Fatal" not in ended.stderr
    # Of a finaliser that imports what is no longer there.
    assert "shutting down" not in ended.stderr


def test_five_hundred_connections_come_and_go_with_the_collector_at_every_turn(loop, no_leaks):
    """uvloop#706"""
    references = []
    for number in range(500):
        near, far = unix_pair()
        transport, protocol = attach(loop, near)
        references.append(weakref.ref(protocol))
        if number % 3 == 0:
            far.close()
            run(loop, protocol.lost)
        elif number % 3 == 1:
            transport.write(b"x")
            transport.close()
            turns(loop, 2)
        else:
            transport.write(bytes(1_000_000))
            transport.abort()
            turns(loop, 2)
        far.close()
        if number % 50 == 0:
            gc.collect()
    del transport, protocol, near, far
    gc.collect()
    assert [reference for reference in references if reference() is not None] == []


def test_a_fork_leaves_the_loop_of_the_parent_alone(loop, unix):
    """asyncio#347: the child ends, the parent's loop still works."""
    near, far = unix
    transport, protocol = attach(loop, near)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    far.send(b"x")
    run(loop, protocol.wait_received(1))
    close(loop, transport)
