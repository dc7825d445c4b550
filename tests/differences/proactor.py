"""Differences that the proactor has besides."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from refusing import refuse

import hotloop
from differences.entry import Entry, Section, probe
from differences.streams import there, there_behind, turns_until_lost
from differences.threads import watching_in_a_child
from harness import Loop, attach, turns, unix_pair


@probe("the loop is a `hotloop.SelectorEventLoop`")
def selector_class(loop: Loop) -> bool:
    return isinstance(loop, hotloop.SelectorEventLoop)


@probe("what the peer can read when the first write of a callback returns")
def first_write(loop: Loop) -> str:
    return there_behind(loop, b"one")


@probe("turns from a first write, which fails, to `connection_lost`")
def broken_first_write(loop: Loop) -> int:
    near, far = unix_pair()
    transport, protocol = attach(loop, near)
    transport.pause_reading()
    far.close()
    loop.call_soon(transport.write, b"one")
    return turns_until_lost(loop, protocol)


@probe("what a duplicate of a socket reads that was paused when bytes had come")
def read_by_a_duplicate(loop: Loop) -> str:
    nears, fars = zip(unix_pair(), unix_pair(), strict=True)
    duplicates = [socket.socket(fileno=os.dup(near.fileno())) for near in nears]
    (one, protocol), (two, other) = [attach(loop, near) for near in nears]
    # After some small receives the ring receives for a stream.
    for count in range(4, 44, 4):
        for far in fars:
            far.send(b"data")
        while len(protocol.received) < count or len(other.received) < count:
            turns(loop)
    # Both have something in the same turn, and the first to be told of it pauses the other.
    protocol.data_received = lambda _: two.pause_reading()
    other.data_received = lambda _: one.pause_reading()
    for far in fars:
        far.send(b"data")
    while one.is_reading() and two.is_reading():
        turns(loop)
    return there(duplicates[one.is_reading()])


@probe("a loop where a filter refuses io_uring")
def refused(loop: Loop) -> str:
    loop.close()
    refuse(errno.EPERM)
    try:
        type(loop)()
    except OSError as error:
        return f"`{type(error).__name__}`: {error.strerror.partition(':')[0]}"
    return "is made"


@probe("`add_reader` in a forked child")
def forked(loop: Loop) -> str:
    turns(loop)
    return watching_in_a_child(loop)


@probe("`loop.driver`")
def driver(loop: Any) -> str:
    return f"`{loop.driver}`" if hasattr(loop, "driver") else "is not there"


SECTIONS = [
    Section(
        "The proactor",
        Entry(
            """
            asyncio's `ProactorEventLoop` exists on Windows only. hotloop's, on Linux, is an `asyncio.SelectorEventLoop`
            like the other, because that class is where Unix sockets, pipes, signal handlers and children come from; it
            is no `hotloop.SelectorEventLoop`.
            """,
            selector_class,
            "test_choice.py::test_a_loop_is_what_its_class_says",
        ),
        Entry(
            """
            **Small writes**: those of a turn (each up to 16 KiB) go out together when the turn ends, the first one too,
            in the system call that waits. They go out earlier as [above](#several-writes-in-one-turn), and before a
            larger write. So a callback that writes and then blocks until the peer has answered waits for ever; on a
            selector loop it does not. `get_write_buffer_size()` is what asyncio's would be, and so are flow control,
            order and the moment of `connection_lost`, but for an error of such a write, which is told a turn later.
            """,
            first_write,
            broken_first_write,
            "test_posting.py::test_small_writes_leave_when_the_turn_ends",
            "test_conduct.py::test_stock_asyncio_and_both_loops_keep_every_check",
            "test_posting.py::test_what_comes_behind_a_small_write_has_it_sent",
            "test_posting.py::test_a_broken_connection_is_told_in_the_next_turn",
        ),
        Entry(
            """
            **Received ahead**: the kernel may receive for a transport before the loop asks. Who reads from its socket
            himself after `pause_reading()`, through a duplicate say, can miss bytes that the transport has already and
            tells after `resume_reading()`.
            """,
            read_by_a_duplicate,
        ),
        Entry(
            """
            **Where it is refused**: the constructor raises an `OSError` with the kernel's number (`EPERM`, `ENOSYS`,
            `ENOMEM`) whose text says what refuses io_uring: a filter, a setting, a limit, or the age of the kernel.
            `new_event_loop("auto")` and `HOTLOOP_LOOP=auto` make a selector loop then, and nothing is logged.
            """,
            refused,
            "test_refused.py::test_the_constructor_says_why",
            "test_refused.py::test_auto_is_silently_the_selector",
        ),
        Entry(
            """
            **In a child of `os.fork()`**: the loop of the parent is of no use there. Watching, sending and running on it
            raise an `OSError` that says so, closing it is done without touching the parent's, and the parent goes on
            unharmed. A loop that the child makes works. (With a selector loop, asyncio's or hotloop's, parent and child
            share an epoll set and disturb each other.)
            """,
            forked,
            "test_proactor.py::test_a_child_of_a_running_loop_is_told_so",
            "test_proactor.py::test_a_child_makes_a_loop_of_its_own",
            "test_proactor.py::test_a_child_closes_its_copy_and_the_parent_hears_nothing_of_it",
        ),
        Entry(
            """
            `loop.driver` names the facility of the kernel: `"epoll"` or `"io_uring"`. asyncio's loops have no such
            attribute.
            """,
            driver,
            "test_choice.py::test_a_loop_is_what_its_class_says",
        ),
    ),
]
