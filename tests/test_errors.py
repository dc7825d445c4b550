"""Errors on their way out of the loop: the exception handler and what it is given."""

from __future__ import annotations

import asyncio

import pytest
from harness import normalised, outcome, run, same_trace_as_stock, stock_loop, turns


@pytest.mark.parametrize(
    "context",
    [
        {"message": "only a message"},
        {"message": "with an exception", "exception": ZeroDivisionError("text")},
        {},
        {"message": "more", "future": None, "anything": 5, "b": "text"},
    ],
    ids=["message", "exception", "empty", "more"],
)
def test_the_default_handler_logs_as_on_stock_asyncio(loop, caplog, context):
    def logged(loop):
        loop.set_exception_handler(None)
        caplog.clear()
        loop.call_exception_handler(dict(context))
        return [(record.levelname, normalised(record.getMessage())) for record in caplog.records]

    with stock_loop() as stock:
        expected = logged(stock)
    assert logged(loop) == expected
    assert expected


def test_a_handler_gets_loop_and_context(loop):
    seen = []

    def handler(*args):
        seen.append(args)

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.call_exception_handler({"message": "text"})
    assert seen == [(loop, {"message": "text"})]
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


def test_a_task_whose_exception_nobody_took_is_reported(loop):
    import gc

    def scenario(loop, trace):
        async def fail():
            raise ZeroDivisionError("text")

        async def main():
            asyncio.ensure_future(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            gc.collect()

        run(loop, main())
        gc.collect()

    assert "never retrieved" in same_trace_as_stock(loop, scenario)[0]


def test_exceptions_of_done_callbacks_are_reported(loop):
    def scenario(loop, trace):
        def fail(future):
            raise ZeroDivisionError("text")

        future = loop.create_future()
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: trace.append("second"))
        future.set_result(None)
        turns(loop, 2)

    assert same_trace_as_stock(loop, scenario)[-1] == "second"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_and_interrupt_in_a_task_leave_the_loop_and_the_loop_still_works(loop, error):
    async def leave():
        raise error("text")

    with pytest.raises(error, match="text"):
        loop.run_until_complete(leave())
    assert run(loop, asyncio.sleep(0, "works")) == "works"


def test_deep_recursion_in_a_callback_is_an_ordinary_exception(loop, unhandled):
    def deeper():
        deeper()

    loop.call_soon(deeper)
    turns(loop)
    assert isinstance(unhandled.pop()["exception"], RecursionError)


def test_tracebacks_have_no_frame_of_the_loop_that_misleads(loop):
    async def fail():
        raise ZeroDivisionError("text")

    assert outcome(lambda: loop.run_until_complete(fail())) == ("ZeroDivisionError", "text")


def test_a_call_to_the_loop_inside_its_exception_handler_works(loop):
    seen = []

    def handler(loop, context):
        loop.call_soon(seen.append, context["message"])

    def fail():
        raise ZeroDivisionError

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    turns(loop, 2)
    assert len(seen) == 1
