"""Random programs of terminals: data both ways, pauses, and hang-ups of which both sides know what they are told.

They are the conversations of `networks.py`, but for how they end. The kernel keeps what the side of the programs has
written for the master to read, and drops what the master has written when that hangs up.
"""

from __future__ import annotations

import random

from networks import Conversation, Step
from node import Node, Program


def terminals(rng: random.Random) -> Program:
    """A program of one to three terminals, some with a child on the other side."""
    body: list[Node] = []
    for number in range(rng.randint(1, 3)):
        body += _child(rng, number) if rng.random() < 0.15 else _Terminal(rng, number).ends()
    if rng.random() < 0.1:
        body.append(Node('w.spawn("refused", refused(w, "refused"))'))
    return Program(body, "real")


class _Terminal(Conversation):
    def __init__(self, rng: random.Random, number: int) -> None:
        super().__init__(rng, number)
        self.wire = rng.choice(["two files", "two files", "one file"])
        self.connect = "connect_terminal"
        self.is_piped = True
        self.is_upgraded = self.may_upgrade = False
        self.styles = (rng.choice(["streams", "protocol"]), rng.choice(["streams", "protocol"]))
        self.last = [
            self.hang_up, self.hang_up, self.leave_words, self.hang_up_on_who_paused, self.hang_up_on_who_writes, self.abort,
            self.fail,
        ]  # fmt: skip

    def rest(self) -> str:
        """The end of reading, and perhaps a write to who is gone."""
        late = self.rng.choice(["", "", 'end.write(b"late")\n', 'end.write(b"very", b"late")\n'])
        return f'w.log(name, "rest", digest(await end.rest()))\n{late}await end.close()'

    def hang_up(self, actor: int) -> Step:
        size = self.rng.choice([1, 10, 1000, 5000, 70_000])
        writes = f'end.write(pattern(8, {size}))\n{self.receive(1)}\nawait end.close()\nw.log(name, "closed")'
        return writes, f'{self.receive(size)}\nend.write(b"h")\n{self.rest()}'

    def leave_words(self, actor: int) -> Step:
        """The other side from the master hangs up with something unread."""
        if not actor:
            return self.hang_up(actor)
        size = self.rng.choice([1, 100, 1000])  # which the kernel keeps for sure
        writes = f'{self.receive(1)}\nend.write(pattern(8, {size}))\nawait end.close()\nw.log(name, "closed")'
        return writes, f'end.write(b"w")\n{self.rest()}'

    def hang_up_on_who_paused(self, actor: int) -> Step:
        """One side hangs up while the other does not read, and learns of it when it reads again."""
        event = f"w.event{self.number}"
        pauses = (
            f'end.transport.pause_reading()\nend.write(b"p")\nawait {event}.wait()\n'
            f"for _ in range({self.rng.randint(0, 5)}):\n    await asyncio.sleep(0)\n"
            'w.log(name, "reading", end.transport.is_reading(), end.transport.reading.is_closing())\n'
            f"end.transport.resume_reading()\n{self.rest()}"
        )
        return f"{self.receive(1)}\nawait end.close()\n{event}.set()", pauses

    def hang_up_on_who_writes(self, actor: int) -> Step:
        """One side hangs up while something that it does not want waits to be written."""
        if self.wire == "one file":
            return self.hang_up(actor)  # who reads closes the file, and who writes waits for ever
        event = f"w.event{self.number}"
        writes = (
            f'end.write(pattern(1, BIG))\nw.log(name, "waiting", end.transport.get_write_buffer_size() > 0)\n{event}.set()\n'
            'w.log(name, "rest", digest(await end.rest()))\n'
        )
        # A master's writes wait for ever then.
        writes += "end.transport.abort()\nawait end.close()" if actor else "await end.close()"
        return f"end.transport.pause_reading()\nawait {event}.wait()\nawait end.close()", writes


def _child(rng: random.Random, number: int) -> list[Node]:
    name = f"child{number}"
    style = rng.choice(["streams", "protocol"])
    lines = [Node(f'name = "{name}"'), Node(f'end, child = await child_on_terminal(w, name, "{style}")')]
    for _ in range(rng.randint(0, 4)):
        size = rng.choice([1, 100, 5000, 70_000])
        text = f'end.write(pattern({rng.randrange(99)}, {size}))\nw.log(name, "read", digest(await end.read({size})))'
        lines.append(Node(text))
    how = rng.choice(["kill", "terminate", "close"])
    lines.append(Node(f'child.transport.{how}()\nw.log(name, "rest", digest(await end.rest()))'))
    lines.append(Node('await child.end()\nawait end.close()\nw.log(name, "ended", child.transport.get_returncode())'))
    return [Node(f"async def {name}():\n    <0>", [lines]), Node(f'w.spawn("{name}", {name}())')]
