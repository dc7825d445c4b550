"""Bad input: the exception of stock asyncio, by type and by text."""

from __future__ import annotations

import asyncio
import re
import signal
import socket

import pytest

from harness import outcome, run, same_as_stock, stock_loop, turns


async def coroutine():
    """A coroutine function, given where a plain callback is wanted."""


CALLS = {
    "call_soon()": lambda loop: loop.call_soon(),
    "call_soon(None)": lambda loop: loop.call_soon(None),
    "call_soon(5)": lambda loop: loop.call_soon(5),
    "call_soon(text)": lambda loop: loop.call_soon("callback"),
    "call_soon(coroutine function)": lambda loop: loop.call_soon(coroutine),
    "call_soon(keyword)": lambda loop: loop.call_soon(int, base=5),
    "call_soon(context=5)": lambda loop: loop.call_soon(int, context=5),
    "call_soon_threadsafe()": lambda loop: loop.call_soon_threadsafe(),
    "call_soon_threadsafe(None)": lambda loop: loop.call_soon_threadsafe(None),
    "call_soon_threadsafe(coroutine function)": lambda loop: loop.call_soon_threadsafe(coroutine),
    "call_later()": lambda loop: loop.call_later(),
    "call_later(1)": lambda loop: loop.call_later(1),
    "call_later(1, None)": lambda loop: loop.call_later(1, None),
    "call_later(None, int)": lambda loop: loop.call_later(None, int),
    "call_later(text, int)": lambda loop: loop.call_later("1", int),
    "call_later(1, coroutine function)": lambda loop: loop.call_later(1, coroutine),
    "call_at()": lambda loop: loop.call_at(),
    "call_at(1)": lambda loop: loop.call_at(1),
    "call_at(1, None)": lambda loop: loop.call_at(1, None),
    "call_at(None, int)": lambda loop: loop.call_at(None, int),
    "call_at(1, coroutine function)": lambda loop: loop.call_at(1, coroutine),
    "add_reader()": lambda loop: loop.add_reader(),
    "add_reader(0)": lambda loop: loop.add_reader(0),
    "add_reader(-1)": lambda loop: loop.add_reader(-1, int),
    "add_reader(-100)": lambda loop: loop.add_reader(-100, int),
    "add_reader(huge)": lambda loop: loop.add_reader(2**40, int),
    "add_reader(text)": lambda loop: loop.add_reader("0", int),
    "add_reader(None)": lambda loop: loop.add_reader(None, int),
    "add_reader(float)": lambda loop: loop.add_reader(1.0, int),
    "add_reader(object)": lambda loop: loop.add_reader([], int),
    "add_reader(not open)": lambda loop: loop.add_reader(999_999, int),
    "add_writer(-1)": lambda loop: loop.add_writer(-1, int),
    "add_writer(None)": lambda loop: loop.add_writer(None, int),
    "add_writer(not open)": lambda loop: loop.add_writer(999_999, int),
    "remove_reader()": lambda loop: loop.remove_reader(),
    "remove_reader(-1)": lambda loop: loop.remove_reader(-1),
    "remove_reader(None)": lambda loop: loop.remove_reader(None),
    "remove_reader(not open)": lambda loop: loop.remove_reader(999_999),
    "remove_writer(-1)": lambda loop: loop.remove_writer(-1),
    "remove_writer(text)": lambda loop: loop.remove_writer("0"),
    "run_until_complete()": lambda loop: loop.run_until_complete(),
    "run_until_complete(5)": lambda loop: loop.run_until_complete(5),
    "run_until_complete(None)": lambda loop: loop.run_until_complete(None),
    "run_until_complete(function)": lambda loop: loop.run_until_complete(coroutine),
    "run_forever(5)": lambda loop: loop.run_forever(5),
    "stop(5)": lambda loop: loop.stop(5),
    "close(5)": lambda loop: loop.close(5),
    "time(5)": lambda loop: loop.time(5),
    "create_task(5)": lambda loop: loop.create_task(5),
    "create_task(None)": lambda loop: loop.create_task(None),
    "create_future(5)": lambda loop: loop.create_future(5),
    "set_exception_handler(5)": lambda loop: loop.set_exception_handler(5),
    "call_exception_handler()": lambda loop: loop.call_exception_handler(),
    "set_debug()": lambda loop: loop.set_debug(),
    "set_default_executor(5)": lambda loop: loop.set_default_executor(5),
    "run_in_executor(None, None)": lambda loop: loop.run_in_executor(None, None),
    "add_signal_handler(coroutine function)": lambda loop: loop.add_signal_handler(signal.SIGUSR1, coroutine),
    "create_connection()": lambda loop: run(loop, loop.create_connection()),
    "create_connection(None)": lambda loop: run(loop, loop.create_connection(None, "127.0.0.1", 1)),
    "create_server(text)": lambda loop: run(loop, loop.create_server(asyncio.Protocol, 5, 5)),
    "subprocess_exec(5)": lambda loop: run(loop, loop.subprocess_exec(asyncio.SubprocessProtocol, 5)),
    "unknown attribute": lambda loop: loop.no_such_method(),
}  # fmt: skip


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_call_ends_as_on_stock_asyncio(loop, call, debug):
    loop.set_debug(debug)
    made = []

    def cancelled(loop):
        result = call(loop)
        if isinstance(result, asyncio.Handle):
            result.cancel()
        elif isinstance(result, asyncio.Future):
            made.append((loop, result))
        return result

    def text(loop):
        name, message = outcome(lambda: cancelled(loop))
        # Python names the class where it found the method, which is no business of the caller's.
        return name, re.sub(r"\b\w*(Loop|Methods)(?=[.'])", "Loop", message)

    with stock_loop() as stock:
        stock.set_debug(debug)
        expected = text(stock)
        for owner, future in made:
            if owner is stock:
                outcome(lambda future=future: stock.run_until_complete(future))
        if stock._default_executor is not None:
            run(stock, stock.shutdown_default_executor())
    assert text(loop) == expected
    for owner, future in made:
        if owner is loop:
            outcome(lambda future=future: loop.run_until_complete(future))
    # The call left the loop in working order.
    turns(loop, 2)
    assert run(loop, asyncio.sleep(0, "works")) == "works"


def test_a_callback_that_cannot_be_called_is_reported_as_on_stock_asyncio(loop):
    reports = []

    def reported(loop):
        seen = []
        loop.set_exception_handler(lambda _, context: seen.append(context))
        loop.call_soon(5)
        loop.call_later(0, "text", 1)
        turns(loop, 3)
        reports.append([str(context["exception"]) for context in seen])

    same_as_stock(loop, reported)
    assert reports[0] == reports[1] == ["'int' object is not callable", "'str' object is not callable"]


CLOSED = {
    "run_forever": lambda loop, sock: loop.run_forever(),
    "run_until_complete": lambda loop, sock: loop.run_until_complete(asyncio.Event().wait()),
    "call_soon": lambda loop, sock: loop.call_soon(int),
    "call_soon_threadsafe": lambda loop, sock: loop.call_soon_threadsafe(int),
    "call_later": lambda loop, sock: loop.call_later(1, int),
    "call_at": lambda loop, sock: loop.call_at(1, int),
    "add_reader": lambda loop, sock: loop.add_reader(sock, int),
    "add_writer": lambda loop, sock: loop.add_writer(sock, int),
    "remove_reader": lambda loop, sock: loop.remove_reader(sock),
    "remove_writer": lambda loop, sock: loop.remove_writer(sock),
    "create_task": lambda loop, sock: loop.create_task(asyncio.Event().wait()),
    "create_future": lambda loop, sock: loop.create_future(),
    "run_in_executor": lambda loop, sock: loop.run_in_executor(None, int),
    "add_signal_handler": lambda loop, sock: loop.add_signal_handler(signal.SIGUSR1, int),
    "remove_signal_handler": lambda loop, sock: loop.remove_signal_handler(signal.SIGUSR1),
    "stop": lambda loop, sock: loop.stop(),
    "close": lambda loop, sock: loop.close(),
    "time": lambda loop, sock: loop.time(),
    "set_debug": lambda loop, sock: loop.set_debug(True),
    "is_running": lambda loop, sock: loop.is_running(),
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1).send(None),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x").send(None),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, "/nowhere").send(None),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock).send(None),
    "create_server": lambda loop, sock: loop.create_server(asyncio.Protocol, sock=sock).send(None),
    "getaddrinfo": lambda loop, sock: loop.getaddrinfo("name.invalid", 1).send(None),
    "shutdown_asyncgens": lambda loop, sock: loop.shutdown_asyncgens().send(None),
}


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
@pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_closed_loop_answers_as_a_closed_stock_loop(new_loop, call, debug):
    def ended(factory):
        loop = factory()
        loop.set_debug(debug)
        near, far = socket.socketpair()
        near.setblocking(False)
        far.send(b"x")
        loop.close()
        try:
            return outcome(lambda: call(loop, near))
        finally:
            near.close()
            far.close()

    assert ended(new_loop) == ended(asyncio.SelectorEventLoop)


def test_a_closed_loop_does_not_touch_descriptors_of_its_numbers(new_loop):
    """What was the loop's own number may be somebody's pipe now."""
    import os

    loop = new_loop()
    turns(loop)
    loop.close()
    pairs = [os.pipe() for _ in range(4)]
    loop.close()
    outcome(lambda: loop.call_soon_threadsafe(int))  # noqa: F821
    del loop
    for read, write in pairs:
        os.set_blocking(read, False)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        os.close(read)
        os.close(write)


def test_internal_types_cannot_be_made_into_an_unsafe_state(loop):
    """uvloop#760: fuzzers find what can be constructed."""
    kinds = {type(loop), type(loop.call_soon(int)), type(loop.call_later(0, int)), type(loop.call_soon_threadsafe(int))}
    native = [base for kind in kinds for base in kind.__mro__ if base.__module__.endswith("_hotloop")]
    for kind in native:
        try:
            made = kind.__new__(kind)
        except TypeError:
            continue
        outcome(lambda made=made: repr(made))
        for name in dir(made):
            if name.startswith("__") or name in ("_run_once", "run_forever"):
                continue
            outcome(lambda made=made, name=name: getattr(made, name)())
    turns(loop, 2)
    assert run(loop, asyncio.sleep(0, "works")) == "works"


def test_the_exceptions_compared_are_not_all_the_same(loop):
    """The comparison above compares something: the calls end in more than a few ways."""
    endings = {outcome(lambda call=call: call(loop)) for call in list(CALLS.values())[:40]}
    for timer in list(loop._scheduled):
        timer.cancel()
    for handle in list(loop._ready):
        handle.cancel()
    turns(loop)
    assert len(endings) > 15
    assert same_as_stock(loop, lambda loop: loop.call_later(None, int)) == ("TypeError", "delay must not be None")
