"""Runs probes, each in a fork of this process, so that none has to clean up and one may even end its process."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable

from differences.entry import CRASHED, Probe
from harness import LOOPS, PATIENCE, refusal


def outcomes(loop: str, probes: Iterable[Probe]) -> dict[str, str]:
    """What the probes that are for a loop observe on it, by their names; nothing for a proactor where there is none.

    :raises RuntimeError: where a probe raises, or does not end.
    """
    if loop == "proactor" and refusal() is not None:
        return {}
    return {
        probe.name: outcome(loop, probe)
        for probe in probes
        if loop in probe.loops and (probe.elsewhere or sys.version_info.minor in probe.versions)
    }


def outcome(loop: str, probe: Probe) -> str:
    """What one of them observes, which may be how its process ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            warnings.simplefilter("ignore")
            logging.disable()
            answer = probe.measure(LOOPS[loop]())
            word = ("no", "yes")[answer] if isinstance(answer, bool) else str(answer)
            os.write(writing, word.encode())
            status = 0
        except BaseException:
            os.write(writing, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(status)
    os.close(writing)
    # The answer, or the end of the child: what programs it leaves behind have not inherited the pipe.
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    answered = poll.poll(PATIENCE * 1000)
    if not answered:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with open(reading, "rb") as pipe:
        text = os.read(pipe.fileno(), 65536).decode()
    if not answered:
        raise RuntimeError(f"{probe.name} does not end on {loop}")
    if os.WIFSIGNALED(status):
        return CRASHED
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"{probe.name} on {loop}: {text}")
    return text
