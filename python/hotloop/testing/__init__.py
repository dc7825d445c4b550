"""Tests in virtual time: a loop whose clock jumps when nothing is ready, and connections in memory that may fail.

    def test_gives_up_after_an_hour():
        with pytest.raises(TimeoutError):
            hotloop.testing.run(asyncio.wait_for(asyncio.Event().wait(), 3600))      # takes a millisecond

    def test_survives_a_bad_network():
        hotloop.testing.simulate(chat, seeds=100, faults=hotloop.testing.Faults(delay=(0, 0.1), reset=0.01))

A simulation that fails names its seed, and the environment variable ``HOTLOOP_SEED`` runs that one again.
"""

from ._loop import Deadlock, EventLoop
from ._network import Faults, Network
from ._run import run, simulate

__all__ = ["Deadlock", "EventLoop", "Faults", "Network", "run", "simulate"]
