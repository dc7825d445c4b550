"""grpc.aio: server and client on the loop under test."""

from __future__ import annotations

from .harness import LoopUnderTest, run_program


def test_serves_and_asks_on_the_loop(loop_under_test: LoopUnderTest) -> None:
    assert run_program("grpc_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "unary": True,
        "stream up": 2_000_000,
        "stream down": True,
        "both ways": True,
        "failure": "NOT_FOUND",
        "cancelled": True,
        "task cancelled": True,
        "deadline": "DEADLINE_EXCEEDED",
        "tasks left": [],
    }
