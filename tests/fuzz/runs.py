"""Random programs of whole runs: of a `Runner`, or of a loop that is run again and again, and how each run ends.

What a run leaves behind (tasks, generators, jobs of the executor) is cancelled or closed in the order of addresses, so
each of these is an actor of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from node import Node, Program


def runs(rng: random.Random) -> Program:
    """A program of one or two runners or loops, with one to three runs each."""
    writer = _Writer(rng)
    return Program([node for _ in range(rng.randint(1, 2)) for node in writer.runner()], "own")


class _Writer:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 0
        self.actor = ""
        self.is_loop = False
        self.statements: list[Callable[[], Node]] = [
            self.log, self.turn, self.left, self.left, self.generator, self.generator, self.job, self.variable, self.call,
            self.group, self.refused, self.signal, self.attempt, self.waits,
        ]  # fmt: skip
        self.ends: list[Callable[[], Node]] = [self.answer, self.answer, self.answer, self.fail, self.interrupt]

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def runner(self) -> list[Node]:
        name, is_loop = self.name("runner"), self.rng.random() < 0.4
        self.is_loop = is_loop
        debug = self.rng.choice(["", "", "debug=True"])
        group = name  # without the end of it, its loop stays open
        lines = [Node(f"{name} = w.new_loop()" if is_loop else f"{name} = w.runner({debug})", group=group)]
        for _ in range(self.rng.randint(1, 3)):
            self.actor = actor = self.name("main")
            body = [self.rng.choice(self.statements)() for _ in range(self.rng.randint(1, 6))]
            lines.append(Node(f"async def {actor}():\n    <0>", [[*body, self.rng.choice(self.ends)()]], group))
            context = self.rng.choice(["", "", ", context=contextvars.copy_context()"])
            run = f"run_until_complete({actor}())" if is_loop else f"run({actor}(){context})"
            lines.append(Node(f'w.attempt("{actor}", lambda: {name}.{run})', group=group))
            if is_loop and self.rng.random() < 0.3:
                lines.append(Node(f'{name}.stop()\nw.attempt("{name}", {name}.run_forever)', group=group))
        self.actor = name
        if is_loop:
            for way in self.rng.sample(["shutdown_asyncgens", "shutdown_default_executor"], self.rng.randint(0, 2)):
                lines.append(
                    Node(f'w.attempt("{name}", lambda: {name}.run_until_complete({name}.{way}()))', group=group)
                )
        lines.append(Node(f'w.attempt("{name}", {name}.close)', group=group))
        if self.rng.random() < 0.5:
            lines.append(Node(self.after(name, is_loop), group=group))
        return lines

    def after(self, name: str, is_loop: bool) -> str:
        if not is_loop:
            return f'w.attempt("{name}", {name}.get_loop)'
        calls = [
            "run_forever()", "call_soon(print)", "call_soon_threadsafe(print)", "call_later(1, print)", "call_at(1, print)",
            "run_until_complete(w.nothing)", "run_in_executor(None, print)", "close()", "stop()", "is_closed()",
            "is_running()", "add_reader(0, print)", "remove_reader(0)", "remove_writer(0)", "create_task(w.nothing)",
            "add_signal_handler(signal.SIGUSR1, print)", "remove_signal_handler(signal.SIGUSR1)", "get_debug()",
            "create_future().done()",
        ]  # fmt: skip
        return f'w.attempt("{name}", lambda: {name}.{self.rng.choice(calls)})'

    # Statements of a main task.

    def log(self) -> Node:
        return Node(
            f'w.log("{self.actor}", variable.get(), w.loop.is_running(), w.loop.get_debug(), w.loop.is_closed())'
        )

    def turn(self) -> Node:
        return Node("await asyncio.sleep(0)")

    def waits(self) -> Node:
        return Node(f'w.log("{self.actor}", "slept", await asyncio.sleep(0.001, {self.rng.randrange(9)}))')

    def pause(self) -> str:
        """Some turns, or some time where somebody waits until it has passed: a runner when it closes."""
        return f"await asyncio.sleep({self.rng.choice([0, 0 if self.is_loop else 0.001])})"

    def left(self) -> Node:
        """A task that waits, and what it does when it is cancelled."""
        name = self.name("left")
        ends = self.rng.choice(["raise", "raise", f'raise ValueError("{name}")', "pass", self.pause(), self.pause()])
        last = self.rng.choice(["pass", "await asyncio.sleep(0)", f'w.log("{name}", "last", variable.get())'])
        text = (
            f'async def {name}():\n    w.log("{name}", "begins", variable.get())\n    try:\n        await asyncio.sleep(1000)\n'
            f'    except asyncio.CancelledError as error:\n        w.log("{name}", repr(error))\n        {ends}\n'
            f"    finally:\n        {last}\n"
        )
        spawn = self.rng.choice([f"{name} = w.loop.create_task({name}())", f"{name} = asyncio.ensure_future({name}())"])
        rest = self.rng.choice(["", "\nawait asyncio.sleep(0)", f"\nawait asyncio.sleep(0)\n{name}.cancel('early')"])
        return Node(f"{text}{spawn}\nw.keep('{name}', {name}){rest}")

    def generator(self) -> Node:
        """A generator that is left where it is: forgotten, or kept until the end."""
        name = self.name("generator")
        last = self.rng.choice(["pass", self.pause(), self.pause(), f'raise ValueError("{name}")', "yield 7"])
        text = (
            f'async def {name}():\n    try:\n        yield variable.get()\n    finally:\n        w.log("{name}", "ends")\n'
            f"        {last}\n"
        )
        keeps = f'\nw.keep("{name}", {name})' if self.rng.random() < 0.5 else f"\ndel {name}"
        step = f'{name} = {name}()\nw.log("{self.actor}", "first", await anext({name})){keeps}'
        return Node(text + step)

    def job(self) -> Node:
        name = self.name("job")
        text = f'def {name}():\n    w.log("{name}", variable.get())\n    {self.rng.choice(["return 3", f"raise ValueError({name!r})"])}\n'
        calls = [f"w.loop.run_in_executor(None, {name})", f"asyncio.to_thread({name})"]
        if self.rng.random() < 0.3 and not self.is_loop:  # nobody waits for it where nobody closes the executor
            return Node(f"{text}w.keep('{name}', {calls[0]})")
        wait = f'try:\n    w.log("{self.actor}", await {self.rng.choice(calls)})\nexcept ValueError as error:\n    w.log("{self.actor}", repr(error))'
        return Node(text + wait)

    def variable(self) -> Node:
        return Node(f"variable.set({self.rng.randrange(100)})")

    def call(self) -> Node:
        name = self.name("call")
        made = self.rng.choice(["call_soon(", "call_soon_threadsafe(", "call_later(0, ", "call_later(1000, "])
        return Node(f'w.loop.{made}w.{self.rng.choice(["say", "say", "raiser"])}, "{name}")')

    def group(self) -> Node:
        name = self.name("member")
        does = self.rng.choice(["await asyncio.sleep(0)", f'raise ValueError("{name}")', "pass"])
        text = (
            f'async def {name}():\n    {does}\n    w.log("{name}", "done", variable.get())\n'
            f"try:\n    async with TaskGroup() as group:\n        group.create_task({name}())\n"
            f'except* ValueError as error:\n    w.log("{self.actor}", repr(error))'
        )
        return Node(text)

    def refused(self) -> Node:
        """What a loop that runs does not do."""
        call = self.rng.choice(
            ["w.loop.close", "w.loop.run_forever", "lambda: w.loop.run_until_complete(w.loop.create_future())",
             "lambda: asyncio.run(w.nothing)", "lambda: w.runner().run(w.nothing)"]
        )  # fmt: skip
        return Node(f'w.attempt("{self.actor}", {call})')

    def attempt(self) -> Node:
        text = 'try:\n    <0>\nfinally:\n    w.log("{0}", "last words", asyncio.current_task().cancelling())'
        return Node(text.replace("{0}", self.actor), [[self.turn(), self.rng.choice(self.statements)()]])

    def signal(self) -> Node:
        if self.rng.random() < 0.4:
            return Node("signal.raise_signal(signal.SIGINT)\nawait asyncio.sleep(0)")
        name = self.name("signal")
        return Node(
            f'w.loop.add_signal_handler(signal.SIGUSR1, w.say, "{name}")\nsignal.raise_signal(signal.SIGUSR1)\n'
            "await asyncio.sleep(0.001)\n"
            f'w.log("{self.actor}", "handler", w.loop.remove_signal_handler(signal.SIGUSR1), '
            "w.loop.remove_signal_handler(signal.SIGUSR1))"
        )

    # How a main task ends.

    def answer(self) -> Node:
        return Node(f"return {self.rng.randrange(9)}")

    def fail(self) -> Node:
        error = self.rng.choice(
            ["ValueError('main')", "SystemExit(3)", "KeyboardInterrupt('main')", "asyncio.CancelledError('main')"]
        )
        return Node(f"raise {error}")

    def interrupt(self) -> Node:
        """What ends the run from within."""
        name = self.name("interrupt")
        return Node(
            self.rng.choice(
                [f'w.loop.call_soon(w.interrupt, "{name}")\nawait asyncio.sleep(1000)',
                 "w.loop.stop()\nawait asyncio.sleep(1000)",
                 "asyncio.current_task().cancel('itself')\nawait asyncio.sleep(1000)"]
            )
        )  # fmt: skip
