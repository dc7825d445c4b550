"""Differences of loops over a selector that they are given."""

from __future__ import annotations

import fcntl
import os
import resource
import selectors

from differences.entry import Entry, Section, probe
from harness import Loop, turns, unix_pair

#: The proactor takes no selector.
TAKE_ONE = ("asyncio", "selector")


class Own(selectors.SelectSelector):
    """One of a class of its own, which waits itself."""


def over(loop: Loop, selector: selectors.BaseSelector) -> Loop:
    """A loop of the same class over a selector."""
    return type(loop)(selector)  # type: ignore[call-arg]


@probe("a number of 1024 on `select`", loops=TAKE_ONE)
def number_beyond_select(loop: Loop) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    given = over(loop, selectors.SelectSelector())
    near, _ = unix_pair()
    number = fcntl.fcntl(near, fcntl.F_DUPFD, 1024)
    try:
        given.add_writer(number, given.stop)
    except ValueError:
        return "`ValueError` of `add_writer`"
    try:
        given.run_forever()
    except ValueError:
        return "`ValueError` of `run_forever`"
    return "no error"


def closed_while_watched(loop: Loop, selector: selectors.BaseSelector) -> str:
    """What a descriptor does that is closed while it is watched."""
    given = over(loop, selector)
    near, far = unix_pair()
    calls: list[int] = []
    given.add_reader(near.fileno(), calls.append, 1)
    turns(given)
    os.close(near.detach())
    try:
        turns(given, 3)
    except OSError:
        return "ends the loop"
    far.close()
    return "is reported in every turn" if len(calls) > 1 else "is forgotten"


@probe("a descriptor closed while it is watched, on `poll`", loops=TAKE_ONE)
def closed_on_poll(loop: Loop) -> str:
    return closed_while_watched(loop, selectors.PollSelector())


@probe("a descriptor closed while it is watched, on `select`", loops=TAKE_ONE)
def closed_on_select(loop: Loop) -> str:
    return closed_while_watched(loop, selectors.SelectSelector())


@probe("descriptors of the loop's own, registered with a selector that waits itself", loops=TAKE_ONE)
def registered_at_first(loop: Loop) -> int:
    selector = Own()
    over(loop, selector)
    return len(selector.get_map())


SECTIONS = [
    Section(
        "A selector of one's own",
        """
        Natively or not, the loop behaves as on asyncio; [platforms.md](platforms.md) has the table. Where it does not:
        """,
        Entry(
            """
            `select` has no room for descriptor numbers from 1024 on. asyncio says so when it waits, and the loop ends;
            hotloop where the number is given, and the loop goes on.
            """,
            number_beyond_select,
            "test_selectors.py::test_a_number_beyond_select",
        ),
        Entry(
            """
            A descriptor that is closed while it is watched is forgotten, on `poll` and `select` as on `epoll`. On
            asyncio `poll` reports it in every turn, and `select` ends the loop.
            """,
            closed_on_poll,
            closed_on_select,
        ),
        Entry(
            """
            A selector that waits itself has one more descriptor registered, by which other threads wake the loop. It
            hears of what transports watch at the beginning of the next turn.
            """,
            registered_at_first,
            "test_selectors.py::test_a_selector_of_ones_own_is_asked",
            "test_selectors.py::test_other_threads_wake_it",
        ),
    ),
]
