"""Random programs of child processes with protocols of their own: what each actor is told is determined.

A parent goes on when it has been told of what it waits for; a child ends when it is told to, or by itself when nothing
depends on whether its parent knows already.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from node import Node, Program

#: The methods of a protocol, any of which may raise.
METHODS = ["connection_made", "pipe_data_received", "pipe_connection_lost", "process_exited", "connection_lost"]


def children(rng: random.Random) -> Program:
    """A program of one to three parents, each of a child."""
    body = []
    if sys.version_info >= (3, 12) and rng.random() < 0.1:
        body.append(Node("w.loop.set_task_factory(asyncio.eager_task_factory)"))
    for number in range(rng.randint(1, 3)):
        writer = _Writer(rng, f"parent{number}")
        lines = [Node(f'name = "{writer.name}"'), *rng.choice(writer.ways)()]
        body += [
            Node(f"async def {writer.name}():\n    <0>", [lines]),
            Node(f'w.spawn("{writer.name}", {writer.name}())'),
        ]
    return Program(body, "real")


class _Writer:
    def __init__(self, rng: random.Random, name: str) -> None:
        self.rng = rng
        self.name = name
        self.ways: list[Callable[[], list[Node]]] = [
            self.talking, self.talking, self.talking, self.ending, self.ending, self.closed, self.closed, self.deaf, self.mute,
            self.heir, self.stubborn, self.paused, self.big, self.file, self.refused, self.cancelled, self.replaced,
        ]  # fmt: skip

    def start(self, script: str, pipes: tuple[str, str, str], options: str = "") -> Node:
        """Start what a shell runs, in one of several ways."""
        arguments = self.rng.choice([f"({script!r},)", f"({script.encode()!r},)", f'("sh", "-c", {script!r})'])
        if self.rng.random() < 0.15:
            options += f', fails="{self.rng.choice(METHODS)}"'
        if self.rng.random() < 0.15:
            options += self.rng.choice([', cwd="/"', ', env={"PATH": "/usr/bin:/bin"}', ", start_new_session=True"])
        return Node(f"child = await raise_child(w, name, {arguments}, ({', '.join(pipes)}){options})")

    def errors(self) -> str:
        return self.rng.choice(["PIPE", "PIPE", "STDOUT", "DEVNULL"])

    def last(self) -> list[Node]:
        """The end of a child, and what can be done after it."""
        lines = [Node('await child.end()\nw.log(name, "ended", child.transport.get_returncode())')]
        for _ in range(self.rng.randint(0, 3)):
            call = self.rng.choice(
                ['"kill"', '"terminate"', '"send_signal", signal.SIGUSR2', '"get_returncode"', '"close"']
            )
            lines.append(Node(f"child.attempt({call})"))
        if self.rng.random() < 0.2:
            lines.append(
                Node('if child.pipe(0) is not None:\n    child.write(b"late")\n    child.write(b"very", b"late")')
            )
        if self.rng.random() < 0.4:
            lines.append(Node("child.tell()"))
        return lines

    def message(self) -> Node:
        """Something written to a child that writes it back."""
        size = self.rng.choice([1, 10, 1000, 5000, 70_000, 200_000])
        pieces = [f"pattern({self.rng.randrange(99)}, {size})"]
        if self.rng.random() < 0.3:
            pieces.append("b'tail'")
            size += 4
        drains = self.rng.choice(["", "\nawait child.drain()"])
        return Node(
            f'child.write({", ".join(pieces)}){drains}\nw.log(name, "read", await child.read({size}))',
        )

    def stop(self) -> Node:
        """An end of a child that would go on, but for one that waits for no input."""
        return Node(
            self.rng.choice(
                ["child.pipe(0).close()", "child.pipe(0).write_eof()", "child.pipe(0).abort()", "child.transport.kill()",
                 "child.transport.terminate()", "child.transport.send_signal(signal.SIGUSR2)", "child.transport.close()"]
            )
        )  # fmt: skip

    # Ways of a child.

    def talking(self) -> list[Node]:
        """One that writes what it reads, until it is stopped."""
        lines = [self.start("exec cat", ("PIPE", "PIPE", self.errors()))]
        for _ in range(self.rng.randint(0, 4)):
            lines.append(self.rng.choice([self.message, self.message, lambda: Node("child.tell()")])())
        if self.rng.random() < 0.2:
            lines.append(Node("await asyncio.sleep(0)"))
        return [*lines, self.stop(), *self.last()]

    def ending(self) -> list[Node]:
        """One that ends by itself, with more or less to say."""
        says = self.rng.choice(
            ["", "", "echo out; ", "echo err >&2; ", "echo out; echo err >&2; ", "head -c 200000 /dev/zero; "]
        )
        ends = self.rng.choice(["exit 0", "exit 1", "exit 7", "exit 255", "kill -9 $$", "kill -15 $$", ":", "false"])
        pipes = (self.rng.choice(["PIPE", "DEVNULL"]), self.rng.choice(["PIPE", "PIPE", "DEVNULL"]), self.errors())
        lines = [self.start(says + ends, pipes)]
        if self.rng.random() < 0.3:
            lines.append(Node('await child.end("child")\nw.log(name, "is over", child.transport.get_returncode())'))
        return [*lines, *self.last()]

    def closed(self) -> list[Node]:
        """One whose transport is closed early."""
        pipes = (self.rng.choice(["PIPE", "DEVNULL"]), self.rng.choice(["PIPE", "DEVNULL"]), self.errors())
        lines = [self.start("exec sleep 1000", pipes)]
        for _ in range(self.rng.randint(0, 3)):
            lines.append(Node("await asyncio.sleep(0)"))
        if pipes[0] == "PIPE" and self.rng.random() < 0.4:
            lines.append(Node(f"child.has_errors = False\nchild.write(pattern(1, {self.rng.choice([10, 200_000])}))"))
        return [*lines, Node("child.transport.close()"), Node("child.tell()"), *self.last()]

    def deaf(self) -> list[Node]:
        """One that closes its input, and lives on."""
        lines = [self.start("exec 0<&-; echo closed; exec sleep 1000", ("PIPE", "PIPE", self.errors()))]
        lines.append(Node('await child.end("pipe 0")\nw.log(name, "is not heard", await child.read(7))'))
        if self.rng.random() < 0.5:
            lines.append(Node('child.write(b"more")'))
        ends = ["child.transport.kill()", "child.transport.terminate()", "child.transport.close()"]
        return [*lines, Node(self.rng.choice(ends)), *self.last()]

    def mute(self) -> list[Node]:
        """One that closes its output, and lives on."""
        lines = [self.start("exec 1>&- 2>&-; exec cat > /dev/null", ("PIPE", "PIPE", "PIPE"))]
        lines.append(
            Node('await child.end("pipe 1")\nawait child.end("pipe 2")\nchild.write(b"unheard")\nchild.tell()')
        )
        return [*lines, self.stop(), *self.last()]

    def heir(self) -> list[Node]:
        """One that leaves its pipes to another process, and ends before it."""
        script = f"exec 3<&0; cat <&3 & exit {self.rng.randrange(4)}"
        lines = [self.start(script, ("PIPE", "PIPE", self.rng.choice(["PIPE", "DEVNULL"])))]
        lines.append(Node('await child.end("child")\nchild.tell()'))
        for _ in range(self.rng.randint(0, 2)):
            lines.append(self.message())
        return [*lines, Node("child.pipe(0).close()"), *self.last()]

    def stubborn(self) -> list[Node]:
        """One that a signal does not end."""
        lines = [self.start("trap '' TERM; echo ready; exec cat", ("PIPE", "PIPE", self.errors()))]
        lines.append(Node("w.log(name, await child.read(6))\nchild.transport.terminate()"))
        lines.append(self.message())
        return [*lines, Node(self.rng.choice(["child.transport.kill()", "child.pipe(0).close()"])), *self.last()]

    def paused(self) -> list[Node]:
        """One whose output is not read for a while."""
        size = self.rng.choice([10, 5000, 200_000])
        lines = [self.start("exec cat", ("PIPE", "PIPE", self.errors()))]
        turns = self.rng.randint(0, 9)
        lines.append(
            Node(
                f"child.pipe(1).pause_reading()\nchild.write(pattern(4, {size}))\nfor _ in range({turns}):\n"
                '    await asyncio.sleep(0)\nw.log(name, "reading", child.pipe(1).is_reading(), len(child.output[1]))\n'
                f'child.pipe(1).resume_reading()\nw.log(name, "resumed", await child.read({size}))'
            )
        )
        return [*lines, self.stop(), *self.last()]

    def replaced(self) -> list[Node]:
        """One whose protocol makes way for another one."""
        lines = [self.start("exec cat", ("PIPE", "PIPE", self.errors()))]
        if self.rng.random() < 0.5:
            lines.append(self.message())
        lines.append(
            Node(
                'before, child = child, Guardian(w, name + "-other")\nchild.transport = before.transport\n'
                "child.transport.set_protocol(child)\n"
                'w.log(name, "replaced", child.transport.get_protocol() is child)'
            )
        )
        return [*lines, self.message(), self.stop(), *self.last(), Node('w.log(name, "before", before.ended)')]

    def big(self) -> list[Node]:
        """One that does not read for a while."""
        lines = [self.start("read line; exec cat", ("PIPE", "PIPE", self.errors()))]
        lines.append(
            Node('child.write(b"x" * BIG)\nw.log(name, "paused", child.is_paused)\nchild.write(b"\\n", b"tail")')
        )
        lines.append(Node('await child.drain()\nw.log(name, "read", await child.read(4))'))
        return [*lines, self.stop(), *self.last()]

    def file(self) -> list[Node]:
        """One that writes into a file."""
        out, err = self.rng.choice([("file", "PIPE"), ("PIPE", "file"), ("file", "file"), ("file", "STDOUT")])
        lines = [Node("file = temporary_file(w)"), self.start("cat; echo err >&2", ("PIPE", out, err))]
        lines.append(Node('child.write(b"out")\nchild.pipe(0).close()'))
        return [*lines, *self.last(), Node('w.log(name, "file", content(file))')]

    def refused(self) -> list[Node]:
        """What cannot be started."""
        call = self.rng.choice(
            ['w.loop.subprocess_exec(lambda: Guardian(w, name), "/nothing/there")',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "/")',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", cwd="/nothing/there")',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", text=True)',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", shell=True)',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", bufsize=1)',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", encoding="utf-8")',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", universal_newlines=True)',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat\\0")',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), "cat", stdin=-7)',
             'w.loop.subprocess_exec(lambda: Guardian(w, name), 1)',
             'w.loop.subprocess_exec(lambda: [].pop(), "cat")',
             'w.loop.subprocess_shell(lambda: Guardian(w, name), ["cat"])',
             'w.loop.subprocess_shell(lambda: Guardian(w, name), "cat", shell=False)']
        )  # fmt: skip
        text = f'try:\n    await {call}\nexcept Exception as error:\n    w.log(name, "refused", repr(error), getattr(error, "filename", None))'
        return [Node(text)]

    def cancelled(self) -> list[Node]:
        """A start that is given up, at some turn."""
        pipes = (self.rng.choice(["PIPE", "DEVNULL"]), self.rng.choice(["PIPE", "DEVNULL"]), self.errors())
        start = f'raise_child(w, name, ("exec sleep 1000",), ({", ".join(pipes)}))'
        text = (
            f"starting = asyncio.ensure_future({start})\nfor _ in range({self.rng.randint(0, 12)}):\n    await asyncio.sleep(0)\n"
            'w.log(name, "cancel", starting.cancel("enough"))\n'
            'try:\n    child = await starting\nexcept asyncio.CancelledError as error:\n    w.log(name, "cancelled", error)\n'
            "else:\n    child.transport.close()\n    await child.end()"
        )
        return [Node(text)]
