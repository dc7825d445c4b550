"""Twisted's asyncio reactor over the loop under test."""

from __future__ import annotations

from .harness import LoopUnderTest, run_program


def test_its_reactor_runs_on_the_loop(loop_under_test: LoopUnderTest) -> None:
    """twisted#10106: the reactor looks at the loop's private selector, and wants a selector loop."""
    assert run_program("twisted_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "echoed": True,
        "lost": "ConnectionDone",
        "refused": "ConnectionRefusedError",
        "datagram": "margatad",
        "timers": [0, 15, 30],
        "ticks": 5,
        "threads": [2**power for power in range(8)],
        "called": "from a thread",
        "process": "42\n",
        "coroutine": "asyncio's",
    }
