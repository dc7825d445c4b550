"""Pages of memory: long messages do not have the kernel hand out the same ones again and again."""

from __future__ import annotations

import os
import platform

import pytest

from harness import python

#: So many sockets have a message in hand at a time, as the connections of a server have.
FAULTS = """
import resource, socket

SOCKETS, ROUNDS, LENGTH = 20, 50, 64 * 1024
loop = new_loop()
pairs = [socket.socketpair() for _ in range(SOCKETS)]
for near, far in pairs:
    near.setblocking(False)
message = bytes(LENGTH)

def count_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

async def receive(rounds):
    for _ in range(rounds):
        messages = []
        for near, far in pairs:
            far.sendall(message)
            messages.append(await loop.sock_recv(near, LENGTH))
        assert sum(map(len, messages)) == SOCKETS * LENGTH

loop.run_until_complete(receive(2))
before = count_faults()
loop.run_until_complete(receive(ROUNDS))
print((count_faults() - before) / (ROUNDS * SOCKETS))
loop.close()
for pair in pairs:
    for end in pair:
        end.close()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives pages back at each turn")
@pytest.mark.skipif("MALLOC_TRIM_THRESHOLD_" in os.environ, reason="the environment says how much is kept")
def test_long_messages_do_not_take_their_pages_anew_each_time(hotloop_name):
    ended = python(FAULTS, factory=hotloop_name)
    assert (ended.returncode, ended.stderr) == (0, "")
    # A message has 16 pages; without anything done, 11 of them are taken anew.
    assert float(ended.stdout) < 2
