"""The native types from Python's side: no way of making or calling one may crash the interpreter."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import weakref

import pytest

import hotloop
from hotloop import _hotloop

# What a crash would take down runs in a process of its own. Warnings of half-made loops and transports are no errors.
PRELUDE = """
import asyncio, copy, gc, pickle, socket
import hotloop
from hotloop import _hotloop

HUGE = (1 << 31) - 1, 1 << 31, 1 << 62, 1 << 63, 1 << 64, 1 << 200
ODD = None, -1, -(1 << 80), *HUGE, 1.5, float("nan"), "text", b"bytes", (), [], object(), len, type


def attempt(function, *args, **keywords):
    try:
        return function(*args, **keywords)
    except Exception:
        return None


def storm(instance, skip=()):
    names = [name for name in dir(type(instance)) if name in vars(_hotloop.Loop) or not name.startswith("__")]
    for name in names:
        if name in skip or name.startswith("__"):
            continue
        attempt(getattr, instance, name)
        method = attempt(getattr, type(instance), name)
        if not callable(method):
            for value in ODD:
                attempt(setattr, instance, name, value)
            attempt(delattr, instance, name)
            continue
        attempt(method)
        for count in range(8):
            for value in ODD:
                attempt(method, instance, *[value] * count)
        attempt(method, instance, unknown=1)
        for value in ODD:
            attempt(method, value, 1)
    gc.collect()
"""


def survives(program: str) -> str:
    """Run a program in a process of its own; answer what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", PRELUDE + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", ["SocketTransport", "ReadPipeTransport", "WritePipeTransport", "SocketOperation"])
def test_made_by_the_loop_only(name: str) -> None:
    cls = getattr(_hotloop, name)
    for make in (cls, lambda: cls.__new__(cls), lambda: object.__new__(cls)):
        with pytest.raises(TypeError):
            make()
    with pytest.raises(TypeError):
        type("Derived", (cls,), {})


@pytest.mark.parametrize("cls", [_hotloop.Loop, hotloop.SelectorEventLoop])
def test_a_loop_is_never_made_without_its_engine(cls: type) -> None:
    with pytest.raises(TypeError, match="not safe"):
        object.__new__(cls)


def test_a_loop_is_neither_copied_nor_pickled() -> None:
    assert (
        survives(
            """
        for loop in (_hotloop.Loop(), hotloop.new_event_loop()):
            for act in (copy.copy, copy.deepcopy, pickle.dumps):
                try:
                    act(loop)
                except TypeError:
                    print("refused")
        """
        ).splitlines()
        == ["refused"] * 6
    )


def test_instances_keep_their_class() -> None:
    loop = _hotloop.Loop()
    with pytest.raises(TypeError):
        loop.__class__ = _hotloop.SocketOperation  # type: ignore[assignment]
    with pytest.raises(TypeError):
        asyncio.Handle(len, (), loop).__class__ = _hotloop.Loop  # type: ignore[arg-type, assignment]


def test_a_bare_loop_takes_any_call() -> None:
    survives(
        """
        loop = _hotloop.Loop()
        # A turn with nothing to do waits for ever.
        storm(loop, skip={"_run_once"})
        loop = _hotloop.Loop.__new__(_hotloop.Loop)
        for _ in range(3):
            loop._stopping = True
            attempt(loop._run_once)
            for value in ODD:
                attempt(loop._add_callback, value)
                loop._stopping = True
                attempt(loop._run_once)
        """
    )


def test_an_uninitialised_loop_takes_any_call() -> None:
    survives(
        """
        loop = hotloop.SelectorEventLoop.__new__(hotloop.SelectorEventLoop)
        blocking = {"_run_once", "run_forever", "run_until_complete", "__del__"}
        storm(loop, skip=blocking | {"shutdown_default_executor", "_do_shutdown"})
        """
    )


@pytest.mark.parametrize("name", ["Handle", "TimerHandle"])
def test_an_empty_handle_in_the_queue(name: str) -> None:
    survives(
        f"""
        cls = _hotloop.{name}
        class Derived(cls):
            pass
        loop = hotloop.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        for kind in (cls, Derived):
            for make in (lambda: kind.__new__(kind), lambda: object.__new__(kind), kind):
                handle = attempt(make)
                if handle is None:
                    continue
                for act in (repr, copy.copy, pickle.dumps, kind._run, kind.cancel, kind.cancelled):
                    attempt(act, handle)
                handle = make()
                for put in (loop._add_callback, loop._ready_appendleft, loop._timer_handle_cancelled):
                    attempt(put, handle)
                    loop.call_soon(loop.stop)
                    attempt(loop.run_forever)
                loop._ready.clear()
                # Filled badly.
                for slot in ("_callback", "_args", "_context", "_loop", "_cancelled"):
                    for value in ODD:
                        handle = loop.call_soon(len)
                        attempt(setattr, handle, slot, value)
                        loop.call_soon(loop.stop)
                        attempt(loop.run_forever)
                    handle = loop.call_soon(len)
                    attempt(delattr, handle, slot)
                    loop.call_soon(loop.stop)
                    attempt(loop.run_forever)
                    loop._ready.clear()
        loop.close()
        gc.collect()
        """
    )


def test_a_transport_takes_any_call() -> None:
    survives(
        """
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: None)
            near, far = socket.socketpair()
            near.setblocking(False)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            attempt(copy.copy, transport)
            attempt(pickle.dumps, transport)
            storm(transport, skip={"__del__"})
            far.close()
            transport.abort()
            await asyncio.sleep(0)
            storm(transport, skip={"__del__"})

        hotloop.run(main())
        gc.collect()
        """
    )


def test_an_operation_takes_any_call() -> None:
    survives(
        """
        async def main():
            loop = asyncio.get_running_loop()
            near, far = socket.socketpair()
            near.setblocking(False)
            waiting = asyncio.ensure_future(loop.sock_recv(near, 1))
            await asyncio.sleep(0)
            operation, _ = loop._watchers(near.fileno())
            assert type(operation) is _hotloop.SocketOperation
            attempt(copy.copy, operation)
            attempt(pickle.dumps, operation)
            loop._add_callback(operation)
            await asyncio.sleep(0)
            storm(operation)
            waiting.cancel()
            near.close()
            far.close()

        hotloop.run(main())
        """
    )


def test_a_receive_of_an_impossible_size_is_out_of_memory() -> None:
    assert survives(
        """
        async def main():
            near, far = socket.socketpair()
            near.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_recv(near, (1 << 62))
            except MemoryError:
                print("refused")
            near.close()
            far.close()

        hotloop.run(main())
        """
    ).split() == ["refused"]


def test_a_handle_in_a_cycle_is_collected_after_it_ran() -> None:
    class Owner:
        handle: asyncio.Handle
        timer: asyncio.TimerHandle

        def act(self) -> None:
            pass

    loop = hotloop.new_event_loop()
    try:
        owner = Owner()
        owner.handle = loop.call_soon(owner.act)
        owner.timer = loop.call_later(0, owner.act)
        gone = weakref.ref(owner)
        handles = [weakref.ref(owner.handle), weakref.ref(owner.timer)]
        del owner
        gc.collect()
        assert gone() is not None, "the loop holds what it has still to call"
        while len(loop._ready) or len(loop._scheduled):
            loop.call_soon(loop.stop)
            loop.run_forever()
        gc.collect()
        assert gone() is None
        assert [handle() for handle in handles] == [None, None]
    finally:
        loop.close()


def test_a_loop_in_a_cycle_is_collected() -> None:
    loop = hotloop.new_event_loop()
    loop.call_soon(loop.stop)
    loop.call_later(1000, loop.stop)
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None


def test_the_types_are_asyncios() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        handle, timer = loop.call_soon(len, ()), loop.call_later(1000, len, ())
        assert isinstance(handle, asyncio.Handle)
        assert not isinstance(handle, asyncio.TimerHandle)
        assert isinstance(timer, asyncio.TimerHandle)
        timer.cancel()
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            assert isinstance(writer.transport, asyncio.Transport)
            transport = weakref.ref(writer.transport)
            assert transport() is writer.transport
            writer.close()
            await writer.wait_closed()

    hotloop.run(main())
    assert issubclass(hotloop.SelectorEventLoop, asyncio.SelectorEventLoop)
