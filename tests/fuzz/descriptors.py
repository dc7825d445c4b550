"""Random programs of sockets without transports: what each side sees is determined.

As in `networks.py` both sides take one step after another, and in each of them one waits for what the other one does.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from networks import Step
from node import Node, Program

WIRES = ["pair", "tcp", "unix"]


def descriptors(rng: random.Random) -> Program:
    """A program of one to three pairs of sockets."""
    body: list[Node] = []
    for number in range(rng.randint(1, 3)):
        body += _Pair(rng, number).sides()
    return Program(body, "real")


class _Pair:
    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.number = number
        self.wire = rng.choice(WIRES)
        self.steps: list[Callable[[], Step]] = [
            self.message, self.message, self.message, self.several, self.cancelled, self.timed_out, self.replaced,
            self.file, self.alone,
        ]  # fmt: skip

    def sides(self) -> list[Node]:
        parts: tuple[list[Node], list[Node]] = ([], [])
        for number in range(self.rng.randint(1, 6)):
            self._take(parts, self.rng.choice(self.steps)(), f"{self.number}.{number}")
        # What ends a connection is no step to be left out: without, a program hangs.
        self._take(parts, self.rng.choice([self.eof, self.close, self.reset])(), "")
        names = [f"talk{self.number}", f"answer{self.number}"]
        group = f"{self.number}"
        return [
            *(
                Node(f"async def {name}(end, name):\n    <0>", [part], group)
                for name, part in zip(names, parts, strict=True)
            ),
            Node(
                f'w.spawn("meet{self.number}", meet(w, {self.number}, "{self.wire}", {", ".join(names)}))', group=group
            ),
        ]

    def _take(self, parts: tuple[list[Node], list[Node]], texts: Step, group: str) -> None:
        actor = self.rng.randrange(2)
        parts[actor].append(Node(texts[0], group=group))
        parts[1 - actor].append(Node(texts[1], group=group))

    def size(self) -> int:
        return self.rng.choice([1, 2, 100, 5000, 70_000, 1 << 19])

    def send(self, size: int) -> str:
        return f"await end.{self.rng.choice(['send', 'send', 'push'])}(pattern({self.rng.randrange(99)}, {size}))"

    def receive(self, size: int) -> str:
        method = self.rng.choice(["receive", "receive_into", "watch"])
        return f'w.log(name, "{method}", digest(await end.{method}({size})))'

    # Steps: what the one that acts does, what the other one does.

    def message(self) -> Step:
        size = self.size()
        return self.send(size), self.receive(size)

    def several(self) -> Step:
        """More writes than reads, or the other way round."""
        sizes = [self.rng.choice([1, 10, 3000]) for _ in range(self.rng.randint(2, 5))]
        first = self.rng.randint(1, sum(sizes) - 1)
        reads = [self.receive(size) for size in (first, sum(sizes) - first)]
        return "\n".join(self.send(size) for size in sizes), "\n".join(reads)

    def cancelled(self) -> Step:
        method = self.rng.choice(["receive", "receive_into"])
        attempt = (
            f'reading = w.spawn(name + "-reading", end.{method}({self.size()}))\n'
            f"for _ in range({self.rng.randint(0, 3)}):\n    await asyncio.sleep(0)\n"
            'reading.cancel("enough")\n'
            'try:\n    await reading\nexcept asyncio.CancelledError as error:\n    w.log(name, "cancelled", error)\n'
            "await end.send(b'g')"
        )
        return attempt, self.receive(1)

    def timed_out(self) -> Step:
        attempt = f"await asyncio.wait_for(end.{self.rng.choice(['receive', 'receive_into'])}(1), 0.001)"
        return (
            f'try:\n    {attempt}\nexcept TimeoutError:\n    w.log(name, "no more time")\nawait end.send(b"g")',
            self.receive(1),
        )

    def replaced(self) -> Step:
        return 'w.log(name, "replaced", await end.replaced())', self.send(1)

    def file(self) -> Step:
        size = self.rng.choice([1, 5000, 1 << 19])
        offset = self.rng.choice([0, 0, size // 2])
        count = self.rng.choice([None, None, 1])
        return f"await end.send_file({size}, {offset}, {count})", self.receive(count or size - offset)

    def alone(self) -> Step:
        sizes = [self.rng.choice([1, 500, 1400]) for _ in range(self.rng.randint(1, 4))]
        alone = [f"listen({self.rng.randint(0, 2)})", "refused()", "misuse()", f"datagrams({sizes})"]
        return f"await end.{self.rng.choice(alone)}", "pass"

    # Ends.

    def eof(self) -> Step:
        ends = 'end.sock.shutdown(socket.SHUT_WR)\nw.log(name, "rest", await end.rest())\nend.close()'
        return ends, f'w.log(name, "rest", await end.rest())\n{self.send(10)}\nend.close()'

    def close(self) -> Step:
        size = self.size()
        return f"{self.send(size)}\nend.close()", 'w.log(name, "rest", digest(await end.rest()))\nend.close()'

    def reset(self) -> Step:
        """One side closes while there is something that it has not read."""
        return (
            "await end.readable()\nend.close()",
            f'{self.send(1)}\nw.log(name, "rest", await end.rest())\nend.close()',
        )
