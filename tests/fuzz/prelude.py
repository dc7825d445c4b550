"""What a random program stands on: its world, its trace, and how it is run. A printed script begins with this file."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import re
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

#: Turns of the loop between two ticks of the virtual clock: what is not waiting for time comes to rest in them.
TURNS = 12

#: Ticks that a program has before whatever still runs is cancelled.
TICKS = 12

#: Seconds of real time after which a program is stopped. None needs a tenth of a second; a loop that loses something does.
LIMIT = 20.0

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class Hang(KeyboardInterrupt):
    """A program that did not come to its end. A loop passes on no other exception of a callback."""


class World:
    """One run of a program: its loop, what it shares, and the trace that it leaves, a line for each thing that happened."""

    def __init__(self, loop: Any, now: Callable[[], float] | None) -> None:
        self.loop = loop
        self.make_loop: Callable[[], Any] = type(loop)
        self.trace: list[str] = []
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.handles: dict[str, Any] = {}
        self.closing: list[Callable[[], Any]] = []
        self.renamed: dict[str, str] = {}
        """What differs from run to run, such as ports, and what the trace says instead."""
        self._now = now

    def __getattr__(self, name: str) -> Any:
        """What programs share, made when it is first asked for: `future0`, `queue1`, `lock0` and so on."""
        made = {
            "future": self.loop.create_future,
            "event": asyncio.Event,
            "lock": asyncio.Lock,
            "condition": asyncio.Condition,
            "semaphore": lambda: asyncio.Semaphore(2),
            "queue": lambda: asyncio.Queue(2),
            "barrier": lambda: asyncio.Barrier(2),
        }[name.rstrip("0123456789")]()
        setattr(self, name, made)
        return made

    def log(self, *what: Any) -> None:
        """Put a line into the trace, with the virtual time."""
        line = " ".join(normalised(str(part)) for part in what)
        for text, name in self.renamed.items():
            line = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", name, line)
        self.trace.append(f"{self._now():g}: {line}" if self._now else line)

    def raiser(self, text: str) -> None:
        """A callback that fails."""
        self.log(text, "raises")
        raise ValueError(text)

    def interrupt(self, text: str) -> None:
        """A callback that ends the run."""
        self.log(text, "interrupts")
        raise KeyboardInterrupt(text)

    def say(self, text: str) -> None:
        """A callback that leaves its name, and the context that it ran in."""
        self.log(text, variable.get())

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        """A task of that name, or of one like it where that is taken. It tells how it ends."""
        while name in self.tasks:
            name += "'"

        async def telling() -> Any:
            try:
                answer = await coroutine
            except BaseException as error:
                self.log(name, "ends by", repr(error))
                raise
            self.log(name, "answers", answer)
            return answer

        task = self.loop.create_task(telling(), name=name, **options)
        self.tasks[name] = task
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    def task(self, name: str) -> Any:
        """A future of how the task of that name ends, done where there is none yet, or it is the one that asks.

        Cancelling it leaves the task alone: two that wait for each other would cancel each other without end.
        """
        task = self.tasks.get(name)
        if task is None or task is asyncio.current_task(self.loop):
            task = self.loop.create_future()
            task.set_result("no task")
        return asyncio.shield(task)

    def new_loop(self) -> Any:
        """A loop, for programs that run their own."""
        loop = self.make_loop()
        loop.set_exception_handler(self.handler)
        loop.slow_callback_duration = float("inf")
        self.closing.append(loop.close)
        self.loop = loop
        return loop

    def runner(self, **options: Any) -> asyncio.Runner:
        """A runner of such a loop."""
        return asyncio.Runner(loop_factory=self.new_loop, **options)

    @property
    def nothing(self) -> Coroutine[Any, Any, None]:
        """A coroutine."""
        return asyncio.sleep(0)

    def attempt(self, name: str, call: Callable[[], Any]) -> None:
        """Log the answer or the exception of a call."""
        try:
            answer = call()
        except Hang:
            raise
        except BaseException as error:
            self.log(name, "ends by", repr(error), repr(error.__cause__))
        else:
            self.log(name, "answers", answer if isinstance(answer, (int, type(None))) else type(answer).__mro__[-2])

    def cancel(self, name: str) -> None:
        """Cancel the task or the handle of that name."""
        found = self.tasks.get(name) or self.handles.get(name)
        if found is not None:
            self.log("cancel", name, found.cancel(*[name] if name in self.tasks else []))

    def keep(self, name: str, handle: Any) -> None:
        """Keep a handle for `cancel`."""
        self.handles[name] = handle

    def settle(self, name: str, answer: Any) -> None:
        """Give a shared future its result or exception, or cancel it."""
        future = getattr(self, name)
        if answer is None:
            self.log(name, "cancelled", future.cancel())
        elif not future.done():
            (future.set_exception if isinstance(answer, Exception) else future.set_result)(answer)

    def pair(self, name: str) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets of that name, which do not block."""
        if name not in self.__dict__:
            pair = socket.socketpair()
            for end in pair:
                end.setblocking(False)
                self.closing.append(end.close)
            self.__dict__[name] = pair
        return self.__dict__[name]

    def watch(self, name: str) -> None:
        """Log what the first socket of the pair of that name receives."""
        near, _ = self.pair(name)

        def receive() -> None:
            # After an interrupted turn asyncio calls twice for what is there once.
            with contextlib.suppress(BlockingIOError):
                self.log(name, "received", near.recv(2))

        self.loop.add_reader(near, receive)
        self.closing.insert(0, lambda: self.loop.remove_reader(near))

    def answer_signals(self) -> None:
        """Log the signal that programs raise."""
        self.loop.add_signal_handler(signal.SIGUSR1, self.say, "signal")
        self.closing.append(lambda: self.loop.remove_signal_handler(signal.SIGUSR1))

    def raise_signal(self) -> None:
        """Raise the signal, where the program answers it."""
        if signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL:
            signal.raise_signal(signal.SIGUSR1)

    def handler(self, _: Any, context: dict[str, Any]) -> None:
        """The exception handler. What the collector finds is left out: it comes when it comes."""
        if "was never retrieved" not in context["message"] and "was destroyed" not in context["message"]:
            self.log("handler:", context["message"], repr(context.get("exception")), sorted(context))


class InOrder(dict[Any, None]):
    """A set that is gone through in the order of its making, where asyncio's is in that of addresses."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class TaskGroup(asyncio.TaskGroup):
    """A task group that cancels its tasks in the order of their making."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: Any = InOrder()


def normalised(text: str) -> str:
    """`text` without what differs from run to run, and the places in files."""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    text = re.sub(r"\.\.\.[^()]*>", "...>", text)  # the end of what was shortened: a descriptor, perhaps
    return re.sub(r" at \S*:\d+", "", text)


async def clock(world: World, tick: Callable[[], None]) -> None:
    """Let time pass, then cancel what is left."""
    for _ in range(TICKS):
        for _ in range(TURNS):
            await asyncio.sleep(0)
        tick()
    for _ in range(3):
        left = [name for name, task in world.tasks.items() if not task.done()]
        if not left:
            break
        for name in left:
            world.cancel(name)
        for _ in range(TURNS):
            await asyncio.sleep(0)


async def ending(world: World) -> None:
    """Wait until every task has ended."""
    while left := [task for task in world.tasks.values() if not task.done()]:
        await asyncio.wait(left)


def virtual(loop_class: Any) -> Any:
    """A subclass of a loop whose time passes only when it is told to."""

    class Virtual(loop_class):
        now = 0.0

        def time(self) -> float:
            return self.now

    return Virtual


def run_program(program: Callable[[World], None], loop_class: Any, *, time: str) -> list[str]:
    """Run `program` on a new loop of that class; its trace.

    Time is `virtual`, `still` where it is the clock's but nothing may depend on it, or `real`: then a program ends when
    its tasks do, and the trace has one actor after another, who are the first words of its lines. In a program whose time
    is its `own` it is the same, and all loops are made, run and closed by the program.
    """
    if time == "own":
        return run_whole(program, loop_class)
    loop = (virtual(loop_class) if time == "virtual" else loop_class)()
    world = World(loop, loop.time if time == "virtual" else None)

    def tick() -> None:
        if time == "virtual":
            loop.now += 1.0

    def started() -> None:
        try:
            program(world)
        except Exception as error:
            world.log("program ends by", repr(error))

    def expire(*_: Any) -> None:
        raise Hang

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    asyncio.set_event_loop(loop)
    loop.slow_callback_duration = float("inf")
    loop.set_exception_handler(world.handler)
    if time == "real":
        started()
        passing = loop.create_task(ending(world))
    else:
        loop.call_soon(started)
        passing = loop.create_task(clock(world, tick))
    passing.add_done_callback(lambda _: loop.stop())
    try:
        while not passing.done():
            try:
                loop.run_forever()
            except Hang:
                world.log("hangs")
                break
            except BaseException as error:
                world.log("run_forever raised", repr(error))
            else:
                world.log("run_forever returned")
        world.log("left", [name for name, task in world.tasks.items() if not task.done()])
        # What comes now comes from the collector, whenever that is.
        trace = list(world.trace)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        for close in world.closing:
            close()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        asyncio.set_event_loop(None)
    return by_actor(trace) if time == "real" else trace


def run_whole(program: Callable[[World], None], loop_class: Any) -> list[str]:
    """Run a program that makes its loops itself; its trace, one actor after another."""
    world = World(None, None)
    world.make_loop = loop_class

    def expire(*_: Any) -> None:
        raise Hang

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        program(world)
    except Hang:
        world.log("hangs")
    except BaseException as error:
        world.log("program ends by", repr(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        trace = list(world.trace)
        for close in world.closing:
            # Where a run was left by an exception, the loop may believe that it still runs.
            with contextlib.suppress(RuntimeError):
                close()
        asyncio.set_event_loop(None)
    return by_actor(trace)


def by_actor(trace: list[str]) -> list[str]:
    """A trace with the lines of one actor after another. What the exception handler is told comes from many actors."""
    return sorted(trace, key=lambda line: line if line.startswith("handler:") else line.partition(" ")[0])


def first_difference(expected: list[str], found: list[str]) -> int | None:
    """The index of the first line in which two traces differ; None where they are the same."""
    if expected == found:
        return None
    alike = (index for index, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1])
    return next(alike, min(len(expected), len(found)))


def loop_class(name: str) -> Any:
    """The loop class of that name: `asyncio`, `selector`, `proactor`, or `module:Class`."""
    known = {
        "asyncio": "asyncio:SelectorEventLoop",
        "selector": "hotloop:SelectorEventLoop",
        "proactor": "hotloop:ProactorEventLoop",
    }
    module, _, attribute = known.get(name, name).partition(":")
    return getattr(importlib.import_module(module), attribute)


def compare(program: Callable[[World], None], loop_classes: list[Any], *, time: str) -> int:
    """Run `program` on stock asyncio and on each of the classes, and print where they differ; how many do."""
    expected = run_program(program, asyncio.SelectorEventLoop, time=time)
    differing = 0
    for loop_class in loop_classes:
        found = run_program(program, loop_class, time=time)
        at = first_difference(expected, found)
        print(f"{loop_class.__module__}.{loop_class.__qualname__}:", "same" if at is None else f"differs in line {at}")
        if at is not None:
            differing += 1
            print(*(f"    both:    {line}" for line in expected[max(0, at - 5) : at]), sep="\n")
            print(*(f"    asyncio: {line}" for line in expected[at : at + 5]), sep="\n")
            print(*(f"    here:    {line}" for line in found[at : at + 5]), sep="\n")
    return differing
