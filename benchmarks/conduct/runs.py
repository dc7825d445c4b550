"""Checks of runs of a loop: what ends them, and what a program may find out about them."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from benchmarks.conduct.check import Loop, check, demand, expect, from_callback, run, run_turns


@check()
def exits_leave_the_run(loop: Loop) -> None:
    """KeyboardInterrupt and SystemExit of a callback leave `run_forever`, and the loop can be run again."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    for error in (KeyboardInterrupt(), SystemExit(3)):
        ran: list[str] = []

        def raising(error: BaseException = error) -> None:
            raise error

        loop.call_soon(raising)
        loop.call_soon(ran.append, "behind it")
        try:
            loop.call_later(1, loop.stop)
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit) as raised:
            expect(raised, error, "what left")
        else:
            demand(False, f"{type(error).__name__} does not leave")
        run_turns(loop)
        expect(ran, ["behind it"], "what ran in the next run")
    expect(reports, [], "what was reported")


@check()
def the_running_loop_is_known(loop: Loop) -> None:
    """`asyncio.get_running_loop` answers the loop in callbacks, and nobody runs it a second time meanwhile."""

    async def nothing() -> None:
        pass

    def look() -> None:
        expect(asyncio.get_running_loop() is loop, True, "whether it is the running one")
        expect(loop.is_running(), True, "is_running()")
        coroutine = nothing()
        try:
            loop.run_until_complete(coroutine)
        except RuntimeError:
            pass
        else:
            demand(False, "it runs within itself")
        finally:
            coroutine.close()

    run(loop, from_callback(look))
    expect(asyncio._get_running_loop(), None, "the running loop afterwards")
    expect(loop.is_running(), False, "is_running() afterwards")


@check()
def debug_mode_tells_of_slow_callbacks(loop: Loop) -> None:
    """In debug mode callbacks that take longer than `slow_callback_duration` are logged."""
    records: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logging.getLogger("asyncio").addHandler(Handler())
    logging.getLogger("asyncio").propagate = False
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    run_turns(loop, 2)
    demand(any("took" in record for record in records), "nothing is logged")


@check()
def debug_mode_refuses_other_threads(loop: Loop) -> None:
    """In debug mode `call_soon` and `call_later` of another thread are refused by a RuntimeError."""
    refused: list[str] = []

    def call() -> None:
        for name, arguments in (("call_soon", (print,)), ("call_later", (3600, print))):
            try:
                getattr(loop, name)(*arguments)
            except RuntimeError:
                refused.append(name)

    def start() -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    loop.set_debug(True)
    run(loop, from_callback(start))
    expect(refused, ["call_soon", "call_later"], "what is refused")


@check("async_context")
def generators_are_ended(loop: Loop) -> None:
    """`shutdown_asyncgens` ends asynchronous generators that were begun."""
    ended: list[str] = []

    async def numbers() -> Any:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    generator = numbers()

    async def begin() -> None:
        await anext(generator)

    run(loop, begin())
    expect(ended, [], "what has ended before")
    run(loop, loop.shutdown_asyncgens())
    expect(ended, ["generator"], "what has ended")


CHECKS = [
    exits_leave_the_run,
    the_running_loop_is_known,
    debug_mode_tells_of_slow_callbacks,
    debug_mode_refuses_other_threads,
    generators_are_ended,
]
