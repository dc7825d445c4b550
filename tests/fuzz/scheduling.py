"""Random programs of tasks, callbacks, timers and what synchronises them: their whole trace is determined.

Nothing in them depends on the clock: either time is virtual and passes between turns that are counted, or all timers are
overdue when they are made, or never due.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from node import Node, Program

#: How deep bodies are nested, and how many statements one may have.
DEPTH, LENGTH = 3, 4


def scheduling(rng: random.Random) -> Program:
    """A program of two to five tasks and a few callbacks."""
    is_eager = sys.version_info >= (3, 12) and rng.random() < 0.2
    writer = _Writer(rng, is_virtual=rng.random() < 0.8, is_eager=is_eager)
    body = []
    if rng.random() < 0.1 and not writer.has_signals:
        body.append(Node("w.loop.set_debug(True)"))
    if is_eager:
        body.append(Node("w.loop.set_task_factory(asyncio.eager_task_factory)"))
    if writer.has_signals:
        body.append(Node("w.answer_signals()"))
    names = [writer.name("task") for _ in range(rng.randint(2, 5))]
    for name in names:
        body.append(writer.function(name, DEPTH))
        body.append(writer.call(f'w.spawn, "{name}", {name}()') if rng.random() < 0.2 else _spawn(name))
    for _ in range(rng.randint(0, 3)):
        body.append(writer.callback_statement())
    return Program(body, "virtual" if writer.is_virtual else "still")


class _Writer:
    """Makes statements, with names of their own."""

    def __init__(self, rng: random.Random, *, is_virtual: bool, is_eager: bool) -> None:
        self.rng = rng
        self.is_virtual = is_virtual
        self.is_eager = is_eager
        # A turn that is interrupted leaves its I/O to the next, where it has another place than on asyncio.
        self.has_interrupts = rng.random() < 0.3
        self.has_signals = not self.has_interrupts and rng.random() < 0.2
        self.names: dict[str, int] = {}
        self.in_callbacks = [
            self.log, self.log, self.soon, self.soon, self.timer, self.timer, self.forget, self.settle, self.put_now,
            self.fail_soon, self.spawn_function, self.set_event, self.fail, self.variable, self.ready_socket, self.rare,
        ]  # fmt: skip
        self.in_tasks: list[Callable[[int], Node]] = [
            self.turn, self.turn, self.sleep, self.sleep, self.sleep, self.await_future, self.lock, self.semaphore,
            self.wait_event, self.condition, self.put, self.get, self.attempt, self.attempt, self.swallow, self.timeout,
            self.timeout, self.wait_for, self.group, self.gather, self.wait, self.shield, self.await_task, self.completed,
            self.generator, self.barrier, self.uncancel, self.receive, self.executor,
        ]  # fmt: skip

    def name(self, kind: str) -> str:
        self.names[kind] = number = self.names.get(kind, -1) + 1
        return f"{kind}{number}"

    def any_task(self) -> str:
        return f"task{self.rng.randint(0, self.names.get('task', 0) + 1)}"

    def shared(self, kind: str, count: int = 2) -> str:
        return f"w.{kind}{self.rng.randrange(count)}"

    def delay(self) -> str:
        delays = [0, 0.5, 1, 1, 2, 2, 3, 5, -1, 1000] if self.is_virtual else [0, -1, -0.5, -2, -1, 1000]
        return repr(self.rng.choice(delays))

    def body(self, depth: int) -> list[Node]:
        return [self.statement(depth) for _ in range(self.rng.randint(1, LENGTH))]

    def statement(self, depth: int) -> Node:
        if depth <= 0 or self.rng.random() < 0.4:
            return self.callback_statement()
        return self.rng.choice(self.in_tasks)(depth - 1)

    def callback_statement(self) -> Node:
        return self.rng.choice(self.in_callbacks)()

    def function(self, name: str, depth: int) -> Node:
        answer = Node(f"return {self.rng.randrange(10)}")
        return Node(f"async def {name}():\n    <0>", [[*self.body(depth), answer]])

    # What a callback may do too.

    def log(self) -> Node:
        return Node(f'w.say("{self.name("line")}")')

    def call(self, arguments: str) -> Node:
        context = ", context=contextvars.copy_context()" if self.rng.random() < 0.1 else ""
        # On asyncio a thread-safe call has a signal that comes with it handled a turn earlier.
        method = "call_soon_threadsafe" if self.rng.random() < 0.2 and not self.has_signals else "call_soon"
        return Node(f"w.loop.{method}({arguments}{context})")

    def soon(self) -> Node:
        name = self.name("soon")
        call = self.call(f'w.say, "{name}"').text
        return Node(f'w.keep("{name}", {call})')

    def timer(self) -> Node:
        name, delay = self.name("timer"), self.delay()
        call = f"call_at(w.loop.time() + {delay}" if self.rng.random() < 0.5 else f"call_later({delay}"
        return Node(f'w.keep("{name}", w.loop.{call}, w.say, "{name}"))')

    def forget(self) -> Node:
        kind = self.rng.choice(["timer", "soon", "task", "task"])
        return Node(f'w.cancel("{kind}{self.rng.randint(0, self.names.get(kind, 0) + 1)}")')

    def settle(self) -> Node:
        answer = self.rng.choice(["1", "2", "None", 'ValueError("settled")'])
        return Node(f'w.settle("{self.shared("future", 3)[2:]}", {answer})')

    def put_now(self) -> Node:
        return Node(f"{self.shared('queue')}.put_nowait({self.rng.randrange(9)})")

    def fail_soon(self) -> Node:
        return self.call(f'w.raiser, "{self.name("raiser")}"')

    def spawn_function(self) -> Node:
        name = self.name("task")
        lines = [Node(f'w.say("{name} runs")')]
        if self.rng.random() < 0.5:
            lines.append(Node(f"await asyncio.sleep({self.delay()})"))
        return Node(f'async def {name}():\n    <0>\nw.spawn("{name}", {name}())', [lines])

    def set_event(self) -> Node:
        return Node(f"{self.shared('event')}.{self.rng.choice(['set', 'set', 'clear'])}()")

    def fail(self) -> Node:
        return Node(f'if {self.rng.random() < 0.5}:\n    raise ValueError("{self.name("failure")}")')

    def variable(self) -> Node:
        return Node(f"variable.set({self.rng.randrange(100)})")

    def ready_socket(self) -> Node:
        if self.has_interrupts:
            return self.log()
        return Node(f'w.watch("pair0")\nw.pair("pair0")[1].send(b"{self.rng.randrange(10)}")')

    def rare(self) -> Node:
        choices = ["w.loop.call_soon(w.loop.stop)"]
        if self.has_interrupts:
            choices.append(f'w.loop.call_soon(w.interrupt, "{self.name("interrupt")}")')
        if self.has_signals:
            choices += ["w.raise_signal()"] * 4
        return Node(self.rng.choice(choices))

    # What only a task may do.

    def turn(self, depth: int) -> Node:
        return Node("await asyncio.sleep(0)")

    def sleep(self, depth: int) -> Node:
        return Node(f'w.log("slept", await asyncio.sleep({self.delay()}, "{self.name("sleep")}"))')

    def await_future(self, depth: int) -> Node:
        name = self.shared("future", 3)
        if self.rng.random() < 0.3:
            return Node(f'{name}.add_done_callback(lambda future: w.say("{name} is done"))')
        return Node(f'w.log("{name}", await {name})')

    def lock(self, depth: int) -> Node:
        return Node(f"async with {self.shared('lock')}:\n    <0>", [self.body(depth)])

    def semaphore(self, depth: int) -> Node:
        return Node(f"async with {self.shared('semaphore')}:\n    <0>", [self.body(depth)])

    def wait_event(self, depth: int) -> Node:
        return Node(f"await {self.shared('event')}.wait()")

    def condition(self, depth: int) -> Node:
        name = self.shared("condition")
        act = f"await {name}.wait()" if self.rng.random() < 0.5 else f"{name}.notify({self.rng.randint(1, 2)})"
        return Node(f"async with {name}:\n    <0>", [[*self.body(depth), Node(act)]])

    def put(self, depth: int) -> Node:
        return Node(f"await {self.shared('queue')}.put({self.rng.randrange(9)})")

    def get(self, depth: int) -> Node:
        return Node(f'w.log("got", await {self.shared("queue")}.get())')

    def attempt(self, depth: int) -> Node:
        text = 'try:\n    <0>\nexcept Exception as error:\n    w.log("caught", repr(error))\n    <1>\nfinally:\n    <2>'
        return Node(text, [self.body(depth), self.body(0), [self.log()]])

    def swallow(self, depth: int) -> Node:
        text = 'try:\n    <0>\nexcept asyncio.CancelledError as error:\n    w.log("swallowed", repr(error))'
        return Node(text, [self.body(depth)])

    def timeout(self, depth: int) -> Node:
        text = f"async with asyncio.timeout({self.delay()}) as limit:\n    <0>"
        body = self.body(depth)
        if self.rng.random() < 0.3:
            body.insert(0, Node(f"limit.reschedule(w.loop.time() + {self.delay()})"))
        return Node(text, [body])

    def wait_for(self, depth: int) -> Node:
        name = self.name("task")
        inner = f"{name}()" if self.rng.random() < 0.5 else f'w.spawn("{name}", {name}())'
        return Node(
            f'async def {name}():\n    <0>\nw.log("waited for", await asyncio.wait_for({inner}, {self.delay()}))',
            [self.function(name, depth).bodies[0]],
        )

    def group(self, depth: int) -> Node:
        inside = []
        for _ in range(self.rng.randint(1, 3)):
            name = self.name("task")
            inside += [self.function(name, depth), Node(f'group.create_task({name}(), name="{name}")')]
            inside += self.body(0)
        return Node("async with TaskGroup() as group:\n    <0>", [inside])

    def several(self, depth: int) -> tuple[list[Node], str]:
        names = [self.name("task") for _ in range(self.rng.randint(2, 3))]
        body = [self.function(name, depth) for name in names]
        return body, ", ".join(f'w.spawn("{name}", {name}())' for name in names)

    def gather(self, depth: int) -> Node:
        body, spawned = self.several(depth)
        answers = self.rng.choice(["", ", return_exceptions=True"])
        return Node(f'if True:\n    <0>\n    w.log("gathered", await asyncio.gather({spawned}{answers}))', [body])

    def wait(self, depth: int) -> Node:
        body, spawned = self.several(depth)
        when = self.rng.choice(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
        limit = self.rng.choice(["None", self.delay()])
        text = (
            f"if True:\n    <0>\n    done, rest = await asyncio.wait([{spawned}], timeout={limit}, "
            f'return_when=asyncio.{when})\n    w.log("waited", sorted(task.get_name() for task in done), len(rest))'
        )
        return Node(text, [body])

    def completed(self, depth: int) -> Node:
        if self.is_eager:
            # Which of those that are done already comes first is up to a set, that is to their addresses.
            return self.wait(depth)
        body, spawned = self.several(depth)
        text = f'if True:\n    <0>\n    for next_one in asyncio.as_completed([{spawned}], timeout={self.delay()}):\n        await next_one\n        w.log("one more")'
        return Node(text, [body])

    def shield(self, depth: int) -> Node:
        return Node(f'w.log("shielded", await asyncio.shield(w.task("{self.any_task()}")))')

    def await_task(self, depth: int) -> Node:
        return Node(f'w.log("awaited", await w.task("{self.any_task()}"))')

    def generator(self, depth: int) -> Node:
        if self.has_signals:
            return self.turn(depth)  # its end is a thread-safe call
        name = self.name("generator")
        text = (
            f"async def {name}():\n    try:\n        for number in range(3):\n            yield number\n"
            f'            <0>\n    finally:\n        w.log("{name} ends")\n'
            f'async for number in {name}():\n    w.log("{name}", number)\n    <1>\n    if number == {self.rng.randint(0, 2)}:\n        break'
        )
        return Node(text, [self.body(depth), self.body(0)])

    def barrier(self, depth: int) -> Node:
        return Node(f'w.log("barrier", await {self.shared("barrier", 1)}.wait())')

    def uncancel(self, depth: int) -> Node:
        return Node('w.log("uncancel", asyncio.current_task().cancelling(), asyncio.current_task().uncancel())')

    def receive(self, depth: int) -> Node:
        if self.has_interrupts:
            return self.turn(depth)
        end, text = self.rng.choice(["01", "10"]), self.rng.randrange(10)
        return Node(
            f'w.pair("pair1")[{end[0]}].send(b"{text}")\n'
            f'w.log("received", await w.loop.sock_recv(w.pair("pair1")[{end[1]}], {self.rng.randint(1, 3)}))'
        )

    def executor(self, depth: int) -> Node:
        """A question to the loop, in the place of a thread whose time nobody knows."""
        return Node('w.log("running", w.loop.is_running(), asyncio.current_task() is not None)')


def _spawn(name: str) -> Node:
    return Node(f'w.spawn("{name}", {name}())')
