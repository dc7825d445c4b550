"""Tools of tests that put something of their own in the place of what a loop stands on: its clock, its sockets."""

from __future__ import annotations

from .harness import LoopUnderTest, run_program


def test_freezegun_stops_the_loops_clock(loop_under_test: LoopUnderTest) -> None:
    assert run_program("freezegun_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "said": [[59.0, False], "a minute", [61.0, False], [3661.0, True], "TimeoutError"],
    }


def test_pytest_socket_refuses_connections(loop_under_test: LoopUnderTest) -> None:
    assert run_program("pytest_socket_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "said": ["refused host", "connected", "refused socket", "connected", "socket"],
    }
