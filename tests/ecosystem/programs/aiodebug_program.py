"""aiodebug's three tools, on the loop: slow callbacks, lag, and hangs."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
import warnings
from pathlib import Path

import aiodebug.hang_inspection
import aiodebug.log_slow_callbacks
import aiodebug.monitor_loop_lag
from chosen import answer, package_of, run

slow: list[str] = []
aiodebug.log_slow_callbacks.enable(0, on_slow_callback=lambda name, duration: slow.append(name))


class Statistics:
    """What the lag is told to."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    def timing(self, metric: str, value: float) -> None:
        self.told.set()


def called() -> None:
    pass


async def main() -> dict[str, object]:
    loop = asyncio.get_running_loop()
    loop.call_soon(called)
    loop.call_later(0, called)
    statistics = Statistics()
    aiodebug.monitor_loop_lag.enable(statistics, 0.001, loop)
    await statistics.told.wait()

    with tempfile.TemporaryDirectory() as directory:
        with warnings.catch_warnings():
            # The tool's own, of threading.
            warnings.simplefilter("ignore", DeprecationWarning)
            inspection = aiodebug.hang_inspection.start(directory, 0.05, loop)
        # Its monitor has to have begun.
        await asyncio.sleep(0)
        deadline = time.monotonic() + 45
        # A loop that hangs: its thread is what the tool shows, now and then a line of this round instead.
        while not (hung := shows_the_hang(directory)) and time.monotonic() < deadline:
            hang()
        await aiodebug.hang_inspection.stop_wait(inspection)
        # It writes three of them a second apart, into the directory.
        await asyncio.to_thread(inspection[0].join)
    return {
        "loop": package_of(loop),
        "thread": threading.current_thread() is threading.main_thread(),
        "hang": hung,
        "called": sum("called()" in name for name in slow) >= 2,
        "task": any("monitor_loop_lag" in name for name in slow),
    }


def shows_the_hang(directory: str) -> bool:
    return any("in hang" in (Path(directory) / name).read_text() for name in os.listdir(directory))


def hang() -> None:
    time.sleep(0.02)


answer(run(main()))
