"""The checks of conduct: stock asyncio and this project's loops keep them, planted defects do not, and reports say so."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import fnmatch
import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import loops, report
from benchmarks.conduct import apart, tables
from benchmarks.conduct.check import Broken, expect
from benchmarks.conduct.checks import CHECKS, EXCEPTED
from benchmarks.rows import ROWS
from benchmarks.run import Measured, Run


def test_stock_asyncio_and_both_loops_keep_every_check() -> None:
    names, missing = loops.installed([loops.CONTROL, loops.OURS, loops.PROACTOR])
    assert {loops.CONTROL, loops.OURS} <= set(names), missing
    with ThreadPoolExecutor(len(names)) as threads:
        found = dict(zip(names, threads.map(lambda name: apart.of_loops([name])[name], names), strict=True))
    checked = {name for name, check in CHECKS.items() if check.since <= sys.version_info[:2]}
    assert all(of_loop.keys() == checked for of_loop in found.values())
    broken = {(loop, name): reason for loop, of_loop in found.items() for name, reason in of_loop.items() if reason}
    # What is excepted must not be kept by accident: the page says that it is not.
    excepted = {(loop, name) for loop, name in EXCEPTED if loop in names}
    assert broken.keys() == excepted, broken
    assert all("is not in the kernel" in reason for reason in broken.values())


def putting_off(loop: asyncio.AbstractEventLoop, transport: Any) -> Any:
    """A transport whose writes leave in the next turn."""
    write = transport.write
    transport.write = lambda data: loop.call_soon(write, data)
    return transport


class Changed(asyncio.SelectorEventLoop):
    """A loop that has its transports of sockets changed."""

    def change(self, transport: Any) -> None:
        raise NotImplementedError

    def _make_socket_transport(self, *arguments: Any, **named: Any) -> Any:
        transport = super()._make_socket_transport(*arguments, **named)  # type: ignore[misc]
        self.change(transport)
        return transport


class DeferredWrites(Changed):
    """Transports whose writes leave in the next turn."""

    def change(self, transport: Any) -> None:
        putting_off(self, transport)


class DeferredTls(asyncio.SelectorEventLoop):
    """Transports of TLS whose writes leave in the next turn."""

    def _make_ssl_transport(self, *arguments: Any, **named: Any) -> Any:
        return putting_off(self, super()._make_ssl_transport(*arguments, **named))  # type: ignore[misc]


class DeferredPipes(asyncio.SelectorEventLoop):
    """Pipes whose writes leave in the next turn."""

    def _make_write_pipe_transport(self, *arguments: Any, **named: Any) -> Any:
        return putting_off(self, super()._make_write_pipe_transport(*arguments, **named))  # type: ignore[misc]


class ShortReads(Changed):
    """Transports that ask for less at once than is there."""

    def change(self, transport: Any) -> None:
        transport.max_size = 1 << 16


class Greedy(Changed):
    """Transports that read twice in a turn."""

    def change(self, transport: Any) -> None:
        read = transport._read_ready_cb
        transport._read_ready_cb = lambda: (read(), read())


class Nameless(Changed):
    """Transports that do not know their peer."""

    def change(self, transport: Any) -> None:
        transport._extra["peername"] = None


class Reaping(asyncio.SelectorEventLoop):
    """A loop that reaps whatever child there is."""

    def _run_once(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        super()._run_once()  # type: ignore[misc]


class NoContexts(asyncio.SelectorEventLoop):
    """Callbacks that run in the context in which the loop was made."""

    def __init__(self) -> None:
        super().__init__()
        self.everybodys = contextvars.copy_context()

    def call_soon(self, callback: Any, *arguments: Any, context: Any = None) -> Any:
        return super().call_soon(callback, *arguments, context=self.everybodys)


class Forgetful(asyncio.SelectorEventLoop):
    """Protocols that are told of their connection in a context of nobody's."""

    def call_soon(self, callback: Any, *arguments: Any, context: Any = None) -> Any:
        if getattr(callback, "__name__", "") == "connection_made":
            context = contextvars.Context()
        return super().call_soon(callback, *arguments, context=context)


class KeptArguments(asyncio.SelectorEventLoop):
    """Timers that are kept until they are due."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def call_at(self, when: float, callback: Any, *arguments: Any, context: Any = None) -> Any:
        self.kept.append((callback, arguments, bytes(100)))
        return super().call_at(when, callback, *arguments, context=context)


class EarlyTimers(asyncio.SelectorEventLoop):
    """Timers that come a millisecond before they are due."""

    def call_at(self, when: float, callback: Any, *arguments: Any, context: Any = None) -> Any:
        return super().call_at(when - 0.001, callback, *arguments, context=context)


class Reversed(asyncio.SelectorEventLoop):
    """Callbacks of a turn that run in the wrong order."""

    def _run_once(self) -> None:
        self._ready.reverse()  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Seldom(asyncio.SelectorEventLoop):
    """A loop that has something to run, and asks the kernel in each eighth turn."""

    def __init__(self) -> None:
        super().__init__()
        turns = itertools.count()
        selector = self._selector  # type: ignore[attr-defined]
        select = selector.select
        selector.select = lambda wait=None: [] if wait == 0 and next(turns) % 8 else select(wait)


class Crashing(asyncio.SelectorEventLoop):
    """A loop that takes its process with it."""

    def __init__(self) -> None:
        os.abort()


class Hanging(asyncio.SelectorEventLoop):
    """A loop that does not stop."""

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("planted", "check", "reason"),
    [
        (DeferredWrites, "a_write_leaves_at_once", "is not in the kernel when write() has returned"),
        (DeferredWrites, "an_answer_leaves_at_once", "is not in the kernel when write() has returned"),
        (DeferredWrites, "flow_control_is_told_at_once", "told within write(): ['made'], not ['made', 'pause']"),
        (DeferredTls, "a_write_to_tls_leaves_at_once", "is not in the kernel when write() has returned"),
        (DeferredPipes, "a_pipe_has_bytes_at_once", "what is in the pipe: None, not b'bytes'"),
        (ShortReads, "what_waits_is_one_piece", "the pieces: [65536, 65536], not [131072]"),
        (Greedy, "a_turn_for_each_buffer", "place 1 of 6: \"received b'4567'\", not \"scheduled by b'0123'\""),
        (Nameless, "the_path_of_a_connection_is_known", "the peer's name when it is open: None"),
        (Forgetful, "connecting_has_asyncios_order", "place 1 of 10: ('told', 'unset', False)"),
        (Forgetful, "connecting_to_a_path_has_asyncios_order", "place 1 of 10: ('told', 'unset', False)"),
        (Reaping, "children_of_others_are_left", "the status of another's child: 0, not 5"),
        (NoContexts, "each_has_its_own_context", "what callbacks of call_soon saw"),
        (KeptArguments, "cancelling_lets_go", "are kept by call_later, call_at"),
        (KeptArguments, "cancelled_timers_are_forgotten", "MB for good"),
        (EarlyTimers, "never_early", "of 200 were early"),
        (Reversed, "callbacks_of_a_turn_are_first", "the order"),
        (Reversed, "steps_have_asyncios_order", "place "),
        (Seldom, "every_turn_asks_the_kernel", "turns late"),
        (Seldom, "thread_safe_calls_leave_room", "turns late"),
        (Crashing, "the_running_loop_is_known", "it is killed by SIGABRT"),
        (Hanging, "exits_leave_the_run", "it hangs: no end within 0.5 s"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_defect_is_found(
    planted: Callable[[], Any], check: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "factory", lambda name: planted)
    if planted is Hanging:
        monkeypatch.setattr(apart, "TIMEOUT", 0.5)
    assert reason in apart.in_fork("planted", CHECKS[check])


def test_every_check_says_what_it_is_of() -> None:
    for check in CHECKS.values():
        assert check.claim, check.name
        for pattern in check.rows:
            assert any(fnmatch.fnmatchcase(row, pattern) for row in ROWS), (check.name, pattern)
    assert {name for _, name in EXCEPTED} <= CHECKS.keys()
    assert len({(check.claim, check.run) for check in CHECKS.values()}) == len(CHECKS)


def test_answers_are_compared_where_they_differ_first() -> None:
    assert apart.first_difference([1, 2, 3], [1, 5, 4]) == (2, 5, "place 1 of 3")
    assert apart.first_difference([1], [1, 2]) == (1, 2, "how much there is")
    with pytest.raises(Broken, match=r"^how many: 1, not 2$"):
        expect(1, 2, "how many")


def row(name: str, **costs: float) -> Measured:
    of = ROWS[name]
    return Measured(of.group, of.about, of.unit, {loop.replace("_", "-"): [cost, cost] for loop, cost in costs.items()})


def some_run() -> Run:
    """uvloop does not keep what matters to `gather`, the proactor what matters to `uvicorn`, by intention."""
    rows = {
        "gather": row("gather", asyncio=4.0, hotloop=2.0, uvloop=1.0, rloop=3.0),
        "timers": row("timers", asyncio=4.0, hotloop=2.0, uvloop=1.0, rloop=3.0),
        "uvicorn": row("uvicorn", asyncio=4.0, hotloop=2.0, hotloop_proactor=1.0, unknown=1.0),
    }
    kept = dict.fromkeys(("tasks_are_known", "never_early", "a_write_leaves_at_once"), "")
    conduct = {name: dict(kept) for name in ("asyncio", "hotloop", "hotloop-proactor", "uvloop", "rloop")}
    conduct["uvloop"]["tasks_are_known"] = "what | it does"
    conduct["hotloop-proactor"]["a_write_leaves_at_once"] = "not at once"
    versions = {"uvloop": "uvloop 1"}
    return Run("2026-01-02 03:04 UTC", "a machine", "Linux 6", "CPython 3.14.0 (GCC)", versions, {}, 1.0, rows, conduct)


def cells(page: str, first: str, columns: int) -> list[str]:
    """The line of a table of so many columns that begins with this cell."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines()]
    return next(line for line in lines if line[0] == first and len(line) == columns)


def test_the_page_marks_who_does_not_keep_what_matters_to_a_row() -> None:
    page = report.page(some_run())
    assert cells(page, "gather", 10)[1:7] == [
        *["uvloop †", "2.00", "ns/operation", "0.50 (0.50-0.50)", "rloop", "1.50 (1.50-1.50)"]
    ]
    assert cells(page, "timers", 10)[1:7] == [
        *["uvloop", "2.00", "ns/operation", "0.50 (0.50-0.50)", "uvloop", "0.50 (0.50-0.50)"]
    ], "what uvloop does not keep does not matter to this row"
    assert cells(page, "uvicorn", 10)[1:7] == [
        *["unknown", "2.00", "CPU µs/request", "0.50 (0.50-0.50)", "asyncio", "2.00 (2.00-2.00)"]
    ], "of a loop without conduct nothing is known"
    assert cells(page, "gather", 6)[2:] == ["4.00", "2.00", "**1.00** †", "3.00"]
    assert cells(page, "uvicorn", 6)[2:] == ["4.00", "2.00", "**1.00** ‡", "1.00"]
    assert tables.LEGEND in page
    assert "- behind the best other loop on 3: gather, timers, uvicorn" in page
    assert "- behind the best other loop that keeps asyncio's semantics there on 1: timers" in page


def test_the_page_says_what_is_not_kept() -> None:
    page = report.page(some_run())
    assert "Kept: asyncio 3 of 3, hotloop 3 of 3, hotloop-proactor 2 of 3, uvloop 2 of 3, rloop 3 of 3." in page
    assert cells(page, "tasks_are_known", 8)[2:] == ["gather", "yes", "yes", "yes", "no", "yes"]
    assert cells(page, "a_write_leaves_at_once", 8)[5] == "by intention"
    assert "| what \\| it does" in page
    assert any(
        line.startswith("| hotloop-proactor | a_write") and "not at once; by intention" in line
        for line in page.splitlines()
    )


def test_the_readme_has_both_ratios() -> None:
    block = report.readme_block(some_run())
    assert " 0.50 uvloop † |" in block
    assert " 1.50 rloop |" in block
    both = "costs 0.50 times as much (geometric mean of 3 rows)", "on each row, costs 1.14 times as much"
    assert all(text in " ".join(block.split()) for text in both)


def test_the_readme_has_both_loops_of_hotloop() -> None:
    block = report.readme_block(some_run())
    assert " 0.50 ‡ |" in block
    assert "What ‡ marks is [by intention](docs/differences.md)." in " ".join(block.split())
    run = some_run()
    del run.rows["uvicorn"].figures["hotloop-proactor"]
    assert not any(word in report.readme_block(run) for word in ("roactor", "‡"))


def test_a_run_without_conduct_says_nothing_of_it() -> None:
    run = replace(some_run(), conduct={})
    assert "†" not in report.page(run) + report.readme_block(run)
    assert "semantics" not in report.page(run) + report.readme_block(run)
    assert [each.keeping for each in report.comparisons(run)] == [None] * 3


def test_conduct_is_kept_with_its_run(tmp_path: Any) -> None:
    path = tmp_path / "run.json"
    some_run().save(path)
    assert Run.load(path) == some_run()
    other = replace(some_run(), conduct={"uvloop": {}, "another": {"never_early": ""}})
    assert some_run().with_rows_of(other).conduct == {"another": {"never_early": ""}, **some_run().conduct}
