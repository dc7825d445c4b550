"""distributed: scheduler, client and two workers, each on a loop of the kind under test."""

from __future__ import annotations

from .harness import LoopUnderTest, run_program


def test_a_cluster_of_processes_runs_on_an_installed_policy(loop_under_test: LoopUnderTest) -> None:
    assert run_program("distributed_program", loop_under_test) == {
        "loop": loop_under_test.package,
        "workers": [loop_under_test.package] * 2,
        "sum": sum(number * number for number in range(200)),
        "bytes": 4 << 20,
        "scattered": "scattered, gathered",
    }
