"""Random programs of connections: each end's own trace is determined, whichever end is served first.

A connection's program is a list of steps that both of its ends take. In each step one end waits for what the other one
does, so neither runs ahead of the other into something that depends on time: where a read is cancelled or times out, the
other end is still waiting to be told to go on.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from node import Node, Program

WIRES = ["pair", "pair", "tcp", "tcp", "unix", "tls", "pipes", "one-way sockets"]
STYLES = ["streams", "streams", "protocol", "buffered"]

#: What the two ends of a step do: the one that acts, and the one that answers.
Step = tuple[str, str]


def networks(rng: random.Random) -> Program:
    """A program of one to three connections."""
    body: list[Node] = []
    for number in range(rng.randint(1, 3)):
        conversation = Conversation(rng, number)
        body += conversation.ends()
    return Program(body, "real")


class Conversation:
    """The steps of one connection, and the end of it."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self.rng = rng
        self.number = number
        self.wire = rng.choice(WIRES)
        # asyncio's TLS puts one record over the other in a buffer, so a connection with TLS has none.
        self.is_upgraded = self.wire == "tls"
        self.is_piped = self.wire in ("pipes", "one-way sockets")
        self.connect = "connect_pipes" if self.is_piped else "connect"
        self.may_upgrade = rng.random() < 0.5 and not self.is_piped
        has_buffers = not (self.may_upgrade or self.is_upgraded or self.is_piped)
        styles = [style for style in STYLES if style != "buffered" or has_buffers]
        self.styles = (rng.choice(styles), rng.choice(styles))
        self.steps: list[Callable[[int], Step]] = [
            self.message, self.message, self.message, self.pieces, self.line, self.mutable, self.big, self.paused,
            self.cancelled, self.timed_out, self.names, self.limits, self.many_turns, self.upgrade,
        ]  # fmt: skip
        self.last: list[Callable[[int], Step]] = [self.eof, self.close, self.close, self.abort, self.fail]

    def ends(self) -> list[Node]:
        parts: tuple[list[Node], list[Node]] = ([], [])
        for number in range(self.rng.randint(1, 6)):
            actor = self.rng.randrange(2)
            texts = self.rng.choice(self.steps)(actor)
            self._take(parts, actor, texts, f"{self.number}.{number}")
        actor = self.rng.randrange(2)
        # What ends a connection is no step to be left out: without, a program hangs.
        self._take(parts, actor, self.rng.choice(self.last)(actor), "")
        names = [f"talk{self.number}", f"answer{self.number}"]
        group = f"{self.number}"
        return [
            *(
                Node(f"async def {name}(end, name):\n    <0>", [part], group)
                for name, part in zip(names, parts, strict=True)
            ),
            Node(
                f'w.spawn("connect{self.number}", {self.connect}(w, {self.number}, "{self.wire}", {self.styles}, '
                f"{', '.join(names)}))",
                group=group,
            ),
        ]

    def _take(self, parts: tuple[list[Node], list[Node]], actor: int, texts: Step, group: str) -> None:
        parts[actor].append(Node(texts[0], group=group))
        parts[1 - actor].append(Node(texts[1], group=group))

    def size(self) -> int:
        return self.rng.choice([1, 2, 10, 100, 1000, 5000, 20_000, 70_000])

    def drain(self) -> str:
        return self.rng.choice(["", "\nawait end.drain()"])

    def receive(self, size: int) -> str:
        return f'w.log(name, "read", digest(await end.read({size})))'

    # Steps: what the actor does, what the other one does.

    def message(self, actor: int) -> Step:
        size = self.size()
        return f"end.write(pattern({self.rng.randrange(99)}, {size})){self.drain()}", self.receive(size)

    def pieces(self, actor: int) -> Step:
        sizes = [self.size() for _ in range(self.rng.randint(2, 6))]
        pieces = ", ".join(f"pattern({self.rng.randrange(99)}, {size})" for size in sizes)
        if self.rng.random() < 0.5:
            writes = f"end.write({pieces})"
        else:
            writes = f"for piece in [{pieces}]:\n    end.write(piece)"
            if self.rng.random() < 0.3:
                writes += "\n    await asyncio.sleep(0)"
        reads = "\n".join(self.receive(size) for size in self._cut(sum(sizes)))
        return writes + self.drain(), reads

    def _cut(self, size: int) -> list[int]:
        first = self.rng.randint(0, size)
        return [part for part in (first, size - first) if part]

    def line(self, actor: int) -> Step:
        lines = self.rng.randint(1, 3)
        text = b"".join(b"line %d\n" % number for number in range(lines))
        cut = self.rng.randrange(len(text))
        writes = f"end.write({text[:cut]!r})\nawait asyncio.sleep(0)\nend.write({text[cut:]!r})"
        return writes, f'for _ in range({lines}):\n    w.log(name, "line", await end.read_line())'

    def mutable(self, actor: int) -> Step:
        size = self.size()
        kind = self.rng.choice(["buffer", "memoryview(buffer)", "memoryview(buffer)[1:]"])
        length = size if not kind.endswith("]") else size - 1
        writes = f"buffer = bytearray(pattern(3, {size}))\nend.write({kind})"
        if sys.version_info < (3, 12):
            writes += f"\nbuffer[:] = bytes({size})"  # later on stock asyncio queues a view
        return writes + self.drain(), self.receive(length) if length else "pass"

    def big(self, actor: int) -> Step:
        # TLS counts what waits below it too, which asyncio's does not.
        waits = "" if self.is_upgraded else 'w.log(name, "waiting", end.transport.get_write_buffer_size() > 0)\n'
        writes = f'end.write(pattern(1, BIG))\n{waits}end.write(b"tail")\nawait end.drain()\nw.log(name, "drained")'
        return writes, f"{self.receive((1 << 19) + 3)}\n{self.receive(1)}"

    def paused(self, actor: int) -> Step:
        """The reader pauses, and goes on when everything that fits is on its way."""
        size = self.rng.choice([100, 30_000, 1 << 19])
        writes = f"{self.receive(1)}\nend.write(pattern(5, {size}))\nend.write(b'.')"
        reads = (
            "end.transport.pause_reading()\nend.write(b'p')\n"
            f"for _ in range({self.rng.randint(0, 9)}):\n    await asyncio.sleep(0)\n"
            f'w.log(name, "reading", end.transport.is_reading())\nend.transport.resume_reading()\n{self.receive(size + 1)}'
        )
        return writes, reads

    def cancelled(self, actor: int) -> Step:
        attempts = (
            f'reading = w.spawn(name + "-reading", end.read({self.size()}))\n'
            f"for _ in range({self.rng.randint(0, 3)}):\n    await asyncio.sleep(0)\n"
            'reading.cancel("enough")\n'
            'try:\n    await reading\nexcept asyncio.CancelledError as error:\n    w.log(name, "cancelled", error)\n'
            "end.write(b'g')"
        )
        return attempts, self.receive(1)

    def timed_out(self, actor: int) -> Step:
        limit = self.rng.choice(["0.001", "0", "-1"])
        if self.rng.random() < 0.5:
            attempt = f"    await asyncio.wait_for(end.read(1), {limit})"
        else:
            attempt = f"    async with asyncio.timeout({limit}):\n        await end.read(1)"
        return f'try:\n{attempt}\nexcept TimeoutError:\n    w.log(name, "no more time")\nend.write(b"g")', self.receive(
            1
        )

    def names(self, actor: int) -> Step:
        asks = (
            'w.log(name, "is", type(end.transport.get_extra_info("peername")).__name__, '
            'end.transport.get_extra_info("cipher") is None, end.transport.get_extra_info("nothing"), '
            "end.transport.is_closing(), end.transport.can_write_eof())"
        )
        return f"{asks}\nend.write(b'n')", self.receive(1)

    def limits(self, actor: int) -> Step:
        if self.is_upgraded:
            return self.message(actor)  # asyncio's TLS does not resume below low marks
        high = self.rng.choice([1, 100, 10_000, 1 << 19])
        writes = (
            f"end.transport.set_write_buffer_limits({high})\n"
            'w.log(name, "limits", end.transport.get_write_buffer_limits())\n'
            "end.write(pattern(2, 70_000))\nawait end.drain()"
        )
        return writes, self.receive(70_000)

    def many_turns(self, actor: int) -> Step:
        count = self.rng.randint(2, 40)
        writes = f"for number in range({count}):\n    end.write(b'%d;' % number)\n    if number % 3 == 0:\n        await asyncio.sleep(0)"
        return writes, self.receive(sum(len(b"%d;" % number) for number in range(count)))

    def upgrade(self, actor: int) -> Step:
        """The server asks for it, whoever acts."""
        if self.is_upgraded or not self.may_upgrade:
            return self.message(actor)
        self.is_upgraded = True
        # Neither end may be paused, for asyncio's transport resumes a protocol that it is not with any more.
        asks = 'await end.drain()\nend.write(b"u")\nawait end.upgrade(True)\nw.log(name, "secure")\nend.write(b"s")'
        answers = (
            f'{self.receive(1)}\nawait end.drain()\nawait end.upgrade(False)\nw.log(name, "secure")\n{self.receive(1)}'
        )
        return (asks, answers) if actor else (answers, asks)

    # Ends.

    def eof(self, actor: int) -> Step:
        if self.is_upgraded:
            return self.close(actor)
        size = self.size()
        writes = (
            f"end.write(pattern(8, {size}))\nend.transport.write_eof()\n"
            'w.log(name, "rest", digest(await end.rest()))\nawait end.close()'
        )
        reads = (
            f'w.log(name, "rest", digest(await end.rest()))\nend.write(pattern(9, {self.size()}))\nawait end.close()'
        )
        return writes, reads

    def close(self, actor: int) -> Step:
        size = self.rng.choice([0, 10, 100_000, 1 << 19])
        writes = f'end.write(pattern(8, {size}))\nawait end.close()\nw.log(name, "closed", end.transport.is_closing())'
        return writes, 'w.log(name, "rest", digest(await end.rest()))\nawait end.close()'

    def abort(self, actor: int) -> Step:
        ends = f'{self.receive(1)}\nend.transport.abort()\nawait end.close()\nw.log(name, "aborted")'
        return ends, 'end.write(b"a")\nw.log(name, "rest", len(await end.rest()))\nawait end.close()'

    def fail(self, actor: int) -> Step:
        """A protocol that raises when it is told of the last byte."""
        if self.styles[actor] == "streams":
            return self.abort(actor)
        if self.is_piped:  # a pipe goes on
            ends = f'end.fails = True\nend.write(b"f")\n{self.receive(1)}\nawait end.close()'
            return ends, f'{self.receive(1)}\nend.write(b"x")\nw.log(name, "rest", await end.rest())\nawait end.close()'
        ends = 'end.fails = True\nend.write(b"f")\nw.log(name, "rest", digest(await end.rest()))\nawait end.close()'
        return (
            ends,
            f'{self.receive(1)}\nend.write(b"x")\nw.log(name, "rest", len(await end.rest()))\nawait end.close()',
        )
