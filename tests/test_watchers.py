"""add_reader and add_writer: whose descriptor it is, what is replaced, what is stale, what is never lost."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import time
import weakref

import pytest

from harness import (
    attach,
    close,
    fill,
    run_until_called,
    same_as_stock,
    same_trace_as_stock,
    tcp_pair,
    turns,
    unix_pair,
)


def assert_idle(loop):
    """The loop has nothing to do: a moment of it costs no processor time."""
    before = time.thread_time()
    loop.call_later(0.2, loop.stop)
    loop.run_forever()
    assert time.thread_time() - before < 0.05


def test_a_reader_is_called_with_its_arguments_while_there_is_something_to_read(loop, unix):
    near, far = unix
    seen = []
    loop.add_reader(near, lambda *args: seen.append(args), 1, "two")
    turns(loop, 2)
    assert seen == []
    far.send(b"xy")
    turns(loop, 3)
    assert seen == [(1, "two")] * 3
    near.recv(10)
    turns(loop, 2)
    assert len(seen) == 3
    assert loop.remove_reader(near)


def test_a_writer_is_called_while_there_is_room(loop, unix):
    near, far = unix
    seen = []
    loop.add_writer(near, seen.append, "room")
    turns(loop, 2)
    assert seen == ["room"] * 2
    fill(near)
    turns(loop, 2)
    assert len(seen) == 2
    assert loop.remove_writer(near)


@pytest.mark.parametrize("kind", ["number", "socket", "object with fileno"])
def test_takes_numbers_and_objects(loop, unix, kind):
    """uvloop#97"""
    near, far = unix

    class Wrapped:
        def fileno(self):
            return near.fileno()

    watched = {"number": near.fileno(), "socket": near, "object with fileno": Wrapped()}[kind]
    far.send(b"x")
    run_until_called(loop, lambda done: loop.add_reader(watched, done))
    run_until_called(loop, lambda done: loop.add_writer(watched, done))
    assert loop.remove_reader(near.fileno()) is True
    assert loop.remove_writer(near.fileno()) is True


def test_removing_tells_whether_there_was_one(loop, unix):
    near, _ = unix
    assert loop.remove_reader(near) is False
    assert loop.remove_writer(near) is False
    loop.add_reader(near, int)
    assert loop.remove_writer(near) is False
    assert loop.remove_reader(near) is True
    assert loop.remove_reader(near) is False


def test_reader_and_writer_of_one_descriptor_are_independent(loop, unix):
    near, far = unix
    far.send(b"x")

    def scenario(loop, trace):
        loop.add_writer(near, trace.append, "write")
        loop.add_reader(near, trace.append, "read")
        turns(loop)
        loop.remove_writer(near)
        turns(loop)
        loop.add_writer(near, trace.append, "write")
        loop.remove_reader(near)
        turns(loop)
        loop.remove_writer(near)
        turns(loop)

    assert same_trace_as_stock(loop, scenario).count("read") == 2


def test_a_second_reader_replaces_the_first(loop, unix):
    near, far = unix
    seen = []
    far.send(b"x")
    loop.add_reader(near, seen.append, 1)
    loop.add_reader(near, seen.append, 2)
    turns(loop)
    loop.remove_reader(near)
    assert seen == [2]


def test_replacing_lets_the_first_callback_go(loop, unix):
    near, _ = unix

    class Callback:
        def __call__(self):
            pass

    first = Callback()
    gone = weakref.ref(first)
    loop.add_reader(near, first)
    del first
    loop.add_reader(near, int)
    assert gone() is None
    loop.remove_reader(near)


@pytest.mark.parametrize("action", ["remove", "add"])
def test_a_finaliser_may_touch_the_watcher_that_replaces_it(loop, unix, action):
    """zuvloop#15: foreign code runs while a watcher is being replaced."""
    near, far = unix
    seen = []

    class Callback:
        def __call__(self):
            seen.append("first")

        def __del__(self):
            if action == "remove":
                loop.remove_reader(near)
            else:
                loop.add_reader(near, seen.append, "finaliser")

    loop.add_reader(near, Callback())
    loop.add_reader(near, seen.append, "second")
    far.send(b"x")
    turns(loop, 2)
    loop.remove_reader(near)
    loop.add_reader(near, seen.append, "third")
    turns(loop)
    loop.remove_reader(near)
    assert seen[-1] == "third"
    assert "first" not in seen


def test_a_callback_may_remove_itself(loop, unix):
    near, far = unix
    seen = []

    def readable():
        seen.append(loop.remove_reader(near))

    far.send(b"x")
    loop.add_reader(near, readable)
    turns(loop, 3)
    assert seen == [True]


def test_a_callback_may_remove_another_of_the_same_turn(loop):
    def scenario(loop, trace):
        pairs = [unix_pair() for _ in range(10)]
        for near, far in pairs:
            far.send(b"x")

            def readable():
                trace.append("called")
                for other, _ in pairs:
                    loop.remove_reader(other)

            loop.add_reader(near, readable)
        turns(loop, 2)
        for near, far in pairs:
            near.close()
            far.close()

    assert same_trace_as_stock(loop, scenario) == ["called"]


def test_a_removed_and_reused_number_gets_no_event_of_its_predecessor(loop):
    """aiohttp#1412: the second descriptor of that number has nothing to read."""
    pairs = [unix_pair() for _ in range(2)]
    seen = []
    reused = []

    def readable(index):
        other = pairs[1 - index]
        number = other[0].fileno()
        loop.remove_reader(number)
        loop.remove_reader(pairs[index][0])
        other[0].close()
        fresh = unix_pair()
        assert fresh[0].fileno() == number
        reused.append(fresh)
        loop.add_reader(number, seen.append, "stale")

    for index, (near, far) in enumerate(pairs):
        far.send(b"x")
        loop.add_reader(near, readable, index)
    turns(loop, 3)
    assert seen == []
    assert len(reused) == 1
    loop.remove_reader(reused[0][0])
    for sock in [sock for both in pairs + reused for sock in both]:
        sock.close()


@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_socket_that_was_closed_while_watched_can_still_be_removed(loop, unix, direction):
    # As anyio's Unix sockets do: they close, and a callback of the future removes the watcher.
    near, _ = unix
    add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")
    add(near, int)
    near.close()
    assert remove(near) is True
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        remove(near)


def test_a_socket_that_is_watched_no_more_is_let_go(loop):
    near, far = unix_pair()
    loop.add_reader(near, int)
    loop.add_writer(near, int)
    loop.remove_reader(near)
    loop.remove_writer(near)
    gone = weakref.ref(near)
    near.close()
    del near
    gc.collect()
    assert gone() is None
    far.close()


def test_a_descriptor_closed_without_removal_can_be_watched_again(loop):
    """uvloop#61, asyncio#372: the number comes back with the watcher of its dead predecessor still known."""
    near, far = unix_pair()
    number = near.fileno()
    loop.add_reader(near, pytest.fail, "stale")
    near.close()
    turns(loop, 2)
    second, other = unix_pair()
    assert second.fileno() == number
    loop.remove_reader(number)
    other.send(b"x")
    run_until_called(loop, lambda done: loop.add_reader(number, done))
    loop.remove_reader(number)
    for sock in (far, second, other):
        sock.close()
    assert_idle(loop)


@pytest.mark.parametrize("first", ["transport", "duplicate"])
def test_a_duplicate_of_a_transports_socket_leaves_nothing_that_spins(loop, first):
    """uvloop#61: epoll keeps the registration of a description that a duplicate keeps open."""
    near, far = tcp_pair()
    transport, _ = attach(loop, near)
    duplicate = transport.get_extra_info("socket").dup()
    run_until_called(loop, lambda done: loop.add_writer(duplicate, done))
    if first == "transport":
        close(loop, transport)
        loop.remove_writer(duplicate)
        duplicate.close()
    else:
        loop.remove_writer(duplicate)
        duplicate.close()
        close(loop, transport)
    far.close()
    assert_idle(loop)


def test_a_transport_closed_under_a_duplicate_does_not_spin(loop):
    """uvloop#61: the duplicate outlives the transport, its peer sends, nobody watches."""
    near, far = tcp_pair()
    duplicate = near.dup()
    transport, _ = attach(loop, near)
    close(loop, transport)
    with contextlib.suppress(OSError):
        far.send(b"x" * 1000)
    assert_idle(loop)
    duplicate.close()
    far.close()
    assert_idle(loop)


@pytest.mark.parametrize("method", ["add_reader", "add_writer", "remove_reader", "remove_writer"])
def test_a_descriptor_of_a_transport_is_refused(loop, connection, method):
    """asyncio#420, uvloop#97: and the transport goes on working."""
    transport, protocol, far = connection
    sock = transport.get_extra_info("socket")
    args = (int,) if method.startswith("add") else ()
    for watched in (sock, sock.fileno()):
        with pytest.raises(RuntimeError) as caught:
            getattr(loop, method)(watched, *args)
        assert str(caught.value) == f"File descriptor {watched!r} is used by transport {transport!r}"
    far.send(b"still here")
    loop.run_until_complete(protocol.wait_received(10))


def test_the_descriptor_of_a_closed_transport_is_free(loop, unix):
    near, far = unix
    duplicate = near.dup()
    number = near.fileno()
    transport, _ = attach(loop, near)
    close(loop, transport)
    os.dup2(duplicate.fileno(), number)
    run_until_called(loop, lambda done: loop.add_writer(number, done))
    loop.remove_writer(number)
    os.close(number)
    duplicate.close()


def test_an_error_does_not_drop_a_reader(loop, no_leaks):
    """zuvloop#45: a connected UDP socket that got an ICMP error wakes its reader, and later data does so too."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    address = receiver.getsockname()
    receiver.close()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setblocking(False)
    sender.connect(address)
    outcomes = []

    def readable():
        try:
            outcomes.append(sender.recv(10))
        except OSError as error:
            outcomes.append(type(error))
        loop.stop()

    loop.add_reader(sender, readable)
    sender.send(b"x")
    loop.run_forever()
    assert outcomes == [ConnectionRefusedError]
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(address)
    receiver.sendto(b"data", sender.getsockname())
    loop.run_forever()
    assert outcomes[1:] == [b"data"]
    assert loop.remove_reader(sender)
    receiver.close()
    sender.close()


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_an_unread_error_keeps_waking(loop, no_leaks, method):
    """zuvloop#45: level-triggered until removed, errors too."""
    near, far = unix_pair()
    far.close()
    seen = []
    getattr(loop, method)(near, seen.append, 1)
    turns(loop, 3)
    assert seen == [1, 1, 1]
    loop.remove_reader(near)
    loop.remove_writer(near)
    near.close()


def test_the_reader_of_a_pipe_is_called_at_its_end(loop, no_leaks):
    read, write = os.pipe()
    os.close(write)
    run_until_called(loop, lambda done: loop.add_reader(read, done))
    loop.remove_reader(read)
    os.close(read)


def test_the_writer_of_a_pipe_is_called_when_its_reader_is_gone(loop, no_leaks):
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(65536))
    os.close(read)
    run_until_called(loop, lambda done: loop.add_writer(write, done))
    loop.remove_writer(write)
    os.close(write)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_regular_file_is_refused(loop, tmp_path, method):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        assert same_as_stock(loop, lambda loop: getattr(loop, method)(file, int))[0] == "PermissionError"
        turns(loop)


def test_an_exception_of_a_reader_is_reported_and_it_stays(loop, unix):
    near, far = unix
    far.send(b"x")

    def scenario(loop, trace):
        def readable():
            trace.append("called")
            raise ZeroDivisionError("text")

        loop.add_reader(near, readable)
        turns(loop, 2)
        trace.append(str(loop.remove_reader(near)))

    assert same_trace_as_stock(loop, scenario).count("called") == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_of_a_reader_leave_the_loop_and_it_stays(loop, unix, error):
    near, far = unix
    far.send(b"x")

    def readable():
        raise error

    loop.add_reader(near, readable)
    for _ in range(2):
        with pytest.raises(error):
            loop.run_forever()
    assert loop.remove_reader(near)


def test_watchers_outlive_a_run(loop, unix):
    near, far = unix
    seen = []
    loop.add_reader(near, seen.append, 1)
    turns(loop)
    far.send(b"x")
    turns(loop)
    turns(loop)
    loop.remove_reader(near)
    assert seen == [1, 1]


def test_a_hundred_readers_are_all_called_in_one_turn(loop, no_leaks):
    pairs = [unix_pair() for _ in range(100)]
    seen = []
    for number, (near, far) in enumerate(pairs):
        loop.add_reader(near, seen.append, number)
        far.send(b"x")
    turns(loop)
    assert sorted(seen) == list(range(100))
    for near, far in pairs:
        loop.remove_reader(near)
        near.close()
        far.close()


def test_closing_the_loop_lets_watchers_go_and_leaves_descriptors_open(new_loop, unix):
    near, far = unix

    class Callback:
        def __call__(self):
            pass

    callback = Callback()
    gone = weakref.ref(callback)
    loop = new_loop()
    loop.add_reader(near, callback)
    del callback
    loop.close()
    del loop
    gc.collect()
    assert gone() is None
    far.send(b"x")
    assert near.recv(1) == b"x"


def test_the_context_of_a_reader_is_the_one_of_add_reader(loop, unix):
    import contextvars

    near, far = unix
    word = contextvars.ContextVar("word", default="none")
    seen = []

    def add():
        word.set("adding")
        loop.add_reader(near, lambda: seen.append(word.get()))

    contextvars.copy_context().run(add)
    far.send(b"x")
    turns(loop, 2)
    loop.remove_reader(near)
    assert seen == ["adding", "adding"]


def test_the_map_of_watched_descriptors_is_readable(loop, unix):
    """urwid and others look at `_selector`."""
    near, _ = unix
    assert near.fileno() not in loop._selector.get_map()
    loop.add_reader(near, int)
    assert near.fileno() in loop._selector.get_map()
    loop.remove_reader(near)
