"""Tools that watch a program run: instrumentation, warnings of slow callbacks, asyncio's own view from outside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .harness import DEADLINE, DIES_WITH_US, PROGRAMS, LoopUnderTest, run_program


def test_opentelemetry_sees_the_same_spans(loop_under_test: LoopUnderTest, oracle: LoopUnderTest) -> None:
    said = run_program("opentelemetry_program", loop_under_test)
    assert said["loop"] == loop_under_test.package
    # What the comparison cannot tell: that there is anything to compare.
    assert ["asyncio coro-outer", "program", "UNSET"] in said["spans"]
    assert ["asyncio to_thread-computed", "program", "UNSET"] in said["spans"]
    assert said["spans"] == run_program("opentelemetry_program", oracle)["spans"]


def test_logfire_sees_slow_callbacks(loop_under_test: LoopUnderTest) -> None:
    """logfire#2186: a loop that runs callbacks without ``Handle._run`` has none to warn of.

    Each warning is a child of the span in which the callback was scheduled: the tool enters the handle's own context.
    """
    assert run_program("logfire_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "seen": [
            ["callback from_a_thread", "the task's"],
            ["callback later", "the task's"],
            ["callback soon", "the task's"],
            ["callback work.<locals>.ready", "the task's"],
            ["task worker (work)", "the task's"],
            # Its first step, which was scheduled before.
            ["task worker (work)", None],
        ],
    }


def test_aiodebug_sees_callbacks_lag_and_hangs(loop_under_test: LoopUnderTest) -> None:
    assert run_program("aiodebug_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "thread": True,
        "hang": True,
        "called": True,
        "task": True,
    }


@pytest.mark.skipif(sys.version_info < (3, 14), reason="python -m asyncio ps is of Python 3.14")
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_asyncio_shows_the_tasks_of_another_process(loop_under_test: LoopUnderTest, command: str) -> None:
    with subprocess.Popen(
        [*DIES_WITH_US, sys.executable, str(PROGRAMS / "waiting_program.py"), loop_under_test.factory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == f'"{loop_under_test.package}"\n'
        shown = subprocess.run(
            [sys.executable, "-m", "asyncio", command, str(program.pid)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        program.stdin.close()
        assert program.wait(DEADLINE) == 0
    if "ermission" in shown.stderr:
        pytest.skip("this machine does not let one process look into another")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for name in ("the branch", "first leaf", "second leaf", "branch", "leaf", "waiting_program.py"):
        assert name in shown.stdout or (name == "waiting_program.py" and command == "ps"), shown.stdout
