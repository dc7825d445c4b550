"""Running a loop: run, stop, close, what may be nested and what may not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import warnings
from pathlib import Path

import pytest

from harness import outcome, python, run, same_as_stock, same_trace_as_stock, stock_loop, turns


def test_run_until_complete_answers_and_raises(loop):
    async def answer():
        return "answer"

    async def fail():
        raise ZeroDivisionError("text")

    assert loop.run_until_complete(answer()) == "answer"
    with pytest.raises(ZeroDivisionError, match="text"):
        loop.run_until_complete(fail())
    future = loop.create_future()
    loop.call_soon(future.set_result, 5)
    assert loop.run_until_complete(future) == 5


def test_a_loop_can_be_run_many_times(loop):
    for number in range(200):
        assert loop.run_until_complete(asyncio.sleep(0, number)) == number


def test_states(loop):
    seen = []
    assert (loop.is_running(), loop.is_closed()) == (False, False)
    loop.call_soon(lambda: seen.append((loop.is_running(), loop.is_closed())))
    turns(loop)
    assert seen == [(True, False)]
    loop.close()
    assert (loop.is_running(), loop.is_closed()) == (False, True)
    loop.close()


def test_the_running_loop_is_known_while_it_runs(loop):
    seen = []
    loop.call_soon(lambda: seen.append(asyncio.get_running_loop()))
    turns(loop)
    assert seen == [loop]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_the_thread_of_the_run_is_known_while_it_runs(loop):
    """ray#8176: `_thread_id`."""
    seen = []
    assert loop._thread_id is None
    loop.call_soon(lambda: seen.append(loop._thread_id))
    turns(loop)
    assert seen == [threading.get_ident()]
    assert loop._thread_id is None


@pytest.mark.parametrize("first", ["run_forever", "run_until_complete"])
@pytest.mark.parametrize("second", ["run_forever", "run_until_complete"])
@pytest.mark.parametrize("where", ["same loop", "stock loop", "another loop"])
def test_a_run_inside_a_run_is_refused_as_on_stock_asyncio(loop, new_loop, first, second, where):
    def nested(loop):
        outcomes = []
        other = loop if where == "same loop" else asyncio.SelectorEventLoop() if where == "stock loop" else new_loop()

        def again():
            if second == "run_forever":
                outcomes.append(outcome(other.run_forever))
            else:
                outcomes.append(outcome(lambda: other.run_until_complete(other.create_future())))
            loop.stop()

        async def inside():
            again()

        if first == "run_forever":
            loop.call_soon(again)
            loop.run_forever()
        else:
            loop.run_until_complete(inside())
        turns(loop, 2)
        if other is not loop:
            other.close()
        raise LookupError(str(outcomes))

    name, text = same_as_stock(loop, nested)
    assert (name, "RuntimeError" in text) == ("LookupError", True)


def test_a_run_in_another_thread_is_refused(loop):
    outcomes = []

    def inside():
        thread = threading.Thread(target=lambda: outcomes.append(outcome(loop.run_forever)))
        thread.start()
        thread.join()
        loop.stop()

    loop.call_soon(inside)
    loop.run_forever()
    assert outcomes == [("RuntimeError", "This event loop is already running")]


def test_closing_a_running_loop_is_refused(loop):
    outcomes = []
    loop.call_soon(lambda: outcomes.append(outcome(loop.close)))
    turns(loop)
    assert outcomes == [("RuntimeError", "Cannot close a running event loop")]
    assert not loop.is_closed()


def test_stop_before_the_future_is_done_is_an_error(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="^Event loop stopped before Future completed.$"):
        loop.run_until_complete(future)
    future.cancel()


def test_a_future_of_another_loop_is_refused(loop, new_loop):
    other = new_loop()
    future = other.create_future()
    with pytest.raises(ValueError, match="loop"):
        loop.run_until_complete(future)
    other.close()


def test_stop_is_forgotten_after_the_run(loop):
    loop.stop()
    loop.run_forever()
    assert loop.run_until_complete(asyncio.sleep(0.001, "value")) == "value"


def test_asynchronous_generators_are_closed(loop):
    def scenario(loop, trace):
        async def numbers():
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                trace.append("closed")

        async def main():
            kept.append(numbers())
            async for number in kept[0]:
                trace.append(str(number))
                break

        kept = []
        loop.run_until_complete(main())
        trace.append("shutdown")
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_asyncgens())
        trace.append("end")

    same_trace_as_stock(loop, scenario)


def test_an_asynchronous_generator_that_is_dropped_is_closed(loop):
    def scenario(loop, trace):
        async def numbers():
            try:
                yield 1
            finally:
                trace.append("closed")

        async def main():
            async for _ in numbers():
                break
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            trace.append("main")

        loop.run_until_complete(main())

    same_trace_as_stock(loop, scenario)


def test_asynchronous_generators_are_known_as_long_as_they_are_at_work(loop):
    def scenario(loop, trace):
        async def numbers():
            yield 1
            yield 2

        async def begun():
            generator = numbers()
            await anext(generator)
            return generator

        def known():
            trace.append(f"{type(loop._asyncgens).__name__} of {len(loop._asyncgens)}")

        async def main():
            known()
            generators = [await begun() for _ in range(3)]
            known()
            trace.append(str(generators[0] in loop._asyncgens))
            await generators.pop().aclose()
            gc.collect()
            known()
            # Who iterates over them may see others come and go.
            iterator = iter(loop._asyncgens)
            first = next(iterator)
            generators.sort(key=lambda generator: generator is not first)
            await generators.pop().aclose()
            gc.collect()
            trace.append(f"{len(list(iterator))} more")
            del iterator
            known()
            generators.append(await begun())
            known()
            return generators

        kept = loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
        known()
        trace.append(str(loop._asyncgens_shutdown_called))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kept.append(loop.run_until_complete(begun()))
        known()
        trace.extend(f"{warning.category.__name__} in {Path(warning.filename).name}" for warning in caught)
        for generator in kept:
            loop.run_until_complete(generator.aclose())

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("arguments", [(), (1, 2), (None,), ("text",)], ids=str)
def test_a_bad_asynchronous_generator_is_refused(loop, arguments):
    same_as_stock(loop, lambda loop: type(loop._asyncgen_firstiter_hook(*arguments)))


def test_a_loop_that_notes_asynchronous_generators_in_its_own_way_is_asked(loop):
    noted = []

    class Noting(type(loop)):
        def _asyncgen_firstiter_hook(self, agen):
            noted.append(agen.__name__)
            super()._asyncgen_firstiter_hook(agen)

    async def numbers():
        yield 1

    async def main(loop):
        async for _ in numbers():
            noted.append(len(loop._asyncgens))

    with contextlib.closing(Noting()) as noting:
        noting.run_until_complete(main(noting))
        # As simulated loops do: their order is not to depend on addresses.
        noting._asyncgens = known = set()
        noting.run_until_complete(main(noting))
        assert len(known) == 1
    assert noted == ["numbers", 1, "numbers", 1]


def test_hooks_of_asynchronous_generators_are_put_back(loop):
    before = sys.get_asyncgen_hooks()
    inside = []
    loop.call_soon(lambda: inside.append(sys.get_asyncgen_hooks()))
    turns(loop)
    assert sys.get_asyncgen_hooks() == before
    assert inside[0] != before


def test_what_is_left_in_a_closed_loop_is_not_run(new_loop):
    loop = new_loop()
    loop.call_soon(pytest.fail)
    loop.call_later(0, pytest.fail)
    loop.call_soon_threadsafe(pytest.fail)
    loop.close()
    assert loop.is_closed()


def test_close_with_everything_open_does_not_hang(new_loop, unix):
    """leviathan#5: watchers, timers, executor, an operation and a server under way."""
    near, far = unix
    loop = new_loop()
    server = run(loop, loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    loop.call_later(1000, int)
    run(loop, loop.run_in_executor(None, int))
    task = loop.create_task(loop.sock_recv(near, 1))
    turns(loop, 2)
    server.close()
    task.cancel()
    turns(loop, 2)
    loop.add_reader(near, int)
    loop.close()
    far.send(b"x")


def test_tasks_take_the_keywords_of_this_python(loop):
    """uvloop#746, uvloop#754, uvloop#718"""
    import contextvars

    async def coroutine():
        return asyncio.current_task().get_name()

    assert run(loop, loop.create_task(coroutine(), name="named")) == "named"
    assert run(loop, loop.create_task(coroutine(), name=None)).startswith("Task-")
    assert run(loop, loop.create_task(coroutine(), context=contextvars.copy_context(), name="x")) == "x"

    def eager(loop):
        return run(loop, loop.create_task(coroutine(), eager_start=False, name="x"))

    same_as_stock(loop, eager)


@pytest.mark.parametrize(
    "keywords",
    [
        {"eager_start": True},
        {"eager_start": True, "name": "x"},
        {"eager_start": None},
        {"eager_start": True, "loop": None},
        {"unknown": 1},
        {"coro": None},
    ],
    ids=repr,
)
@pytest.mark.parametrize("debug", [False, True])
def test_tasks_take_no_other_keywords_than_asyncios(loop, keywords, debug):
    async def coroutine(steps):
        steps.append("begins")
        await asyncio.sleep(0)
        steps.append(asyncio.current_task().get_name()[:4])

    async def make(loop, steps):
        begun = coroutine(steps)
        try:
            task = loop.create_task(begun, **keywords)
            steps.append("is there")
            await task
        finally:
            begun.close()

    def made_on(loop):
        loop.set_debug(debug)
        steps = []
        try:
            run(loop, make(loop, steps))
        except TypeError as error:
            steps.append(str(error))
        return steps

    with stock_loop() as stock:
        assert made_on(loop) == made_on(stock)


def test_a_task_factory_is_used(loop):
    made = []

    def factory(loop, coroutine, **options):
        made.append(options)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    run(loop, asyncio.sleep(0))
    assert made
    loop.set_task_factory(None)
    with pytest.raises(TypeError):
        loop.set_task_factory("factory")


def test_futures_are_those_of_asyncio(loop):
    assert type(loop.create_future()) is asyncio.Future
    assert loop.create_future().get_loop() is loop


def test_runner_and_loop_factory(new_loop):
    async def main():
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=new_loop) as runner:
        kind = runner.run(main())
        assert runner.get_loop().__class__ is kind
        assert runner.run(main()) is kind


def test_runner_cancels_what_is_left(new_loop):
    seen = []

    async def left():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        seen.append(asyncio.ensure_future(left()))
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert seen[1:] == ["cancelled"]


def test_sys_exit_in_a_task_ends_the_program_with_its_status(loop_name):
    ended = python(
        """
        import asyncio, sys
        async def main():
            sys.exit(3)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
        """,
        factory=loop_name,
    )
    assert (ended.returncode, ended.stdout) == (3, "")


def test_is_a_selector_event_loop_of_asyncio(loop):
    """twisted#10106"""
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)


def test_private_attributes_that_programs_look_at(loop):
    """ray#8176, covalent#917, uvloop#721, twisted#10106"""
    loop._check_closed()
    assert loop._debug is False
    assert loop._default_executor is None
    assert loop._selector is not None
    assert len(loop._ready) == 0
    assert len(loop._scheduled) == 0
    assert len(loop._transports) == 0
    assert loop._closed is False
    assert loop._stopping is False


def test_repr(loop):
    assert "running=False closed=False debug=False" in repr(loop)
