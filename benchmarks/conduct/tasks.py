"""Checks of tasks and futures: whose they are, and the order of their steps."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from benchmarks.conduct.callbacks import VARIABLE
from benchmarks.conduct.check import TASKS, Loop, check, demand, expect, pass_turns, run


@check(*TASKS)
def tasks_and_futures_are_asyncios(loop: Loop) -> None:
    """`create_task` answers an `asyncio.Task`, and `create_future` an `asyncio.Future`."""

    async def main() -> None:
        task = loop.create_task(asyncio.sleep(0), name="a name")
        demand(isinstance(task, asyncio.Task), f"create_task answers a {type(task).__module__}.{type(task).__name__}")
        expect(task.get_name(), "a name", "the task's name")
        future = loop.create_future()
        told = f"create_future answers a {type(future).__module__}.{type(future).__name__}"
        demand(isinstance(future, asyncio.Future), told)
        expect(future.get_loop() is loop, True, "whether it is the loop's")
        await task

    run(loop, main())


@check("gather")
def tasks_are_known(loop: Loop) -> None:
    """`all_tasks` has each task that is not done, `current_task` is the one that runs."""

    async def one(current: list[object]) -> None:
        current.append(asyncio.current_task())

    async def main() -> None:
        current: list[object] = []
        tasks = [loop.create_task(one(current)) for _ in range(3)]
        expect(asyncio.all_tasks(), {*tasks, asyncio.current_task()}, "all tasks")
        await asyncio.gather(*tasks)
        expect(current, tasks, "who was the current task")
        expect(asyncio.all_tasks(), {asyncio.current_task()}, "all tasks at the end")

    run(loop, main())


@check("gather")
def task_factories_make_all_tasks(loop: Loop) -> None:
    """A task factory makes each task: those of `create_task`, of `asyncio.create_task` and of `asyncio.gather`."""

    class Task(asyncio.Task[Any]):
        pass

    def factory(loop: Loop, coroutine: Any, **named: Any) -> Any:
        return Task(coroutine, loop=loop, **named)

    async def kind() -> type:
        return type(asyncio.current_task())

    async def main() -> None:
        loop.set_task_factory(factory)
        expect(loop.get_task_factory(), factory, "the task factory")
        ways = [loop.create_task(kind()), asyncio.create_task(kind()), kind()]
        expect(await asyncio.gather(*ways), [Task] * 3, "what made the tasks")
        loop.set_task_factory(None)
        expect(await loop.create_task(kind()), asyncio.Task, "what made a task afterwards")

    run(loop, main())


@check(since=(3, 12))
def eager_tasks_begin_at_once(loop: Loop) -> None:
    """With `asyncio.eager_task_factory` a task runs to where it first waits before it is answered."""
    order: list[str] = []

    async def one() -> None:
        order.append("begins")
        await asyncio.sleep(0)
        order.append("ends")

    # Python 3.11 has none.
    eager: Any = getattr(asyncio, "eager_task_factory", None)

    async def main() -> None:
        loop.set_task_factory(eager)
        task = loop.create_task(one())
        order.append("is there")
        await task

    run(loop, main())
    expect(order, ["begins", "is there", "ends"], "the order")


@check(*TASKS)
def tasks_keep_their_contexts(loop: Loop) -> None:
    """A task has a copy of the context that was current when it was made, in all of its steps, for itself."""

    async def one(value: str) -> list[str]:
        seen = [VARIABLE.get()]
        VARIABLE.set(value)
        for _ in range(2):
            await asyncio.sleep(0)
            seen.append(VARIABLE.get())
        return seen

    async def main() -> None:
        VARIABLE.set("made")
        found = await asyncio.gather(one("a"), one("b"))
        expect(found, [["made", "a", "a"], ["made", "b", "b"]], "what the tasks saw")
        expect(VARIABLE.get(), "made", "what they left behind")

    run(loop, main())


@check(*TASKS, same=True)
def steps_have_asyncios_order(loop: Loop) -> object:
    """The steps of tasks, their callbacks and those of futures run in the order that asyncio has."""
    order: list[str] = []

    async def steps(name: str, count: int) -> str:
        for step in range(count):
            order.append(f"{name}{step}")
            await asyncio.sleep(0)
        return name

    async def waiting(name: str, future: asyncio.Future[str]) -> None:
        order.append(f"{name} has {await future}")

    async def main() -> None:
        future = loop.create_future()
        future.add_done_callback(lambda _: order.append("done"))
        tasks = [loop.create_task(waiting(name, future)) for name in "xy"]
        gathered = asyncio.gather(*[steps(name, count) for name, count in (("a", 3), ("b", 1), ("c", 2))])
        loop.call_soon(order.append, "callback")
        loop.call_later(0, order.append, "timer")
        await pass_turns(2)
        future.set_result("it")
        order.append(str(await gathered))
        await asyncio.gather(*tasks)
        event, queue = asyncio.Event(), asyncio.Queue[int](1)
        waiters = [loop.create_task(event.wait()) for _ in range(2)]
        for number, waiter in enumerate(waiters):
            waiter.add_done_callback(lambda _, number=number: order.append(f"event {number}"))  # type: ignore[misc]
        loop.call_soon(event.set)
        reader = loop.create_task(queue.get())
        await queue.put(1)
        order.append("put")
        await queue.put(2)
        order.append("put again")
        order.append(str(await reader))
        await asyncio.gather(*waiters)

    run(loop, main())
    return order


@check("gather", same=True)
def cancelling_has_asyncios_order(loop: Loop) -> object:
    """A task is cancelled before its first step, between steps, while it waits, and again, as on asyncio."""
    order: list[str] = []

    async def steps(name: str, stubborn: bool = False) -> str:
        try:
            for step in range(3):
                order.append(f"{name}{step}")
                await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            order.append(f"{name} is cancelled {error.args}")
            if not stubborn:
                raise
            await asyncio.sleep(0)
            order.append(f"{name} goes on")
        return name

    async def main() -> None:
        first = loop.create_task(steps("first"))
        first.cancel()
        between = loop.create_task(steps("between"))
        stubborn = loop.create_task(steps("stubborn", True))
        waiting = loop.create_task(asyncio.sleep(3600))
        await pass_turns(1)
        for task in (between, stubborn, waiting):
            task.cancel("why")
            task.add_done_callback(lambda task: order.append(f"{task.cancelled()}"))
        found = await asyncio.gather(first, between, stubborn, waiting, return_exceptions=True)
        order.extend(repr(each) for each in found)
        group = asyncio.gather(steps("d"), steps("e"))
        loop.call_soon(group.cancel)
        try:
            await group
        except asyncio.CancelledError:
            order.append("the group is cancelled")

    run(loop, main())
    return order


@check()
def callbacks_of_futures_are_reported(loop: Loop) -> None:
    """The exception handler hears of a done callback that raises, and the other callbacks run."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    ran: list[str] = []

    def raising(_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        task = loop.create_task(asyncio.sleep(0))
        task.add_done_callback(raising)
        task.add_done_callback(lambda _: ran.append("second"))
        await task
        await pass_turns(2)

    run(loop, main())
    expect([type(report.get("exception")) for report in reports], [ZeroDivisionError], "what was reported")
    expect(ran, ["second"], "what ran behind it")


@check()
def lost_exceptions_are_reported(loop: Loop) -> None:
    """The exception handler hears of a task's exception that nobody asks for."""
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))

    async def raising() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        task = loop.create_task(raising())
        await pass_turns(2)
        del task
        gc.collect()

    run(loop, main())
    found = [(report.get("message"), type(report.get("exception"))) for report in reports]
    expect(found, [("Task exception was never retrieved", ZeroDivisionError)], "what was reported")


CHECKS = [
    tasks_and_futures_are_asyncios,
    tasks_are_known,
    task_factories_make_all_tasks,
    eager_tasks_begin_at_once,
    tasks_keep_their_contexts,
    steps_have_asyncios_order,
    cancelling_has_asyncios_order,
    callbacks_of_futures_are_reported,
    lost_exceptions_are_reported,
]
