"""Random programs of children, threads and datagrams: what each actor sees is determined."""

from __future__ import annotations

import random
from collections.abc import Callable

from node import Node, Program


def processes(rng: random.Random) -> Program:
    """A program of one to three children."""
    body = []
    for number in range(rng.randint(1, 3)):
        name = f"parent{number}"
        lines = [Node(f'name = "{name}"'), *rng.choice(_CHILDREN)(rng)]
        body += [Node(f"async def {name}():\n    <0>", [lines]), Node(f'w.spawn("{name}", {name}())')]
    return Program(body, "real")


def _communicate(rng: random.Random) -> list[Node]:
    size = rng.choice([0, 1, 1000, 65_537, 300_000])
    command = rng.choice(
        ['"cat"', '"sh", "-c", "cat; exit 3"', '"sh", "-c", "cat >&2"', f'"head", "-c", "{size // 2}"']
    )
    return [
        Node(f"child = await spawn_process(w, {command})"),
        Node(f"out, err = await child.communicate(pattern(1, {size}))"),
        Node('w.log(name, "communicated", digest(out), digest(err), child.returncode)'),
    ]


def _end(rng: random.Random) -> list[Node]:
    end = rng.choice(["terminate()", "kill()", "send_signal(signal.SIGUSR2)", "stdin.close()"])
    waits = 'w.log(name, "waited", await child.wait(), child.returncode)'
    repeated = f"for _ in range({rng.randint(1, 2)}):\n    {waits}"
    return [Node('child = await spawn_process(w, "cat")'), Node(f"child.{end}"), Node(repeated)]


def _talk(rng: random.Random) -> list[Node]:
    count = rng.randint(1, 4)
    script = '"while read line; do echo \\"got $line\\"; done; echo end >&2; exit 5"'
    said = f'for number in range({count}):\n    child.stdin.write(b"%d\\n" % number)\n    w.log(name, await child.stdout.readline())'
    return [
        Node(f'child = await spawn_process(w, "sh", "-c", {script})'),
        Node(said),
        Node("child.stdin.close()"),
        Node('w.log(name, "ended", await child.wait(), await child.stderr.read(), await child.stdout.read())'),
    ]


def _cancel(rng: random.Random) -> list[Node]:
    awaited = rng.choice(["child.wait()", "child.stdout.read()", "child.communicate()"])
    if awaited == "child.communicate()":
        awaited = "child.stdout.readline()"
    attempt = (
        f"waiting = asyncio.ensure_future({awaited})\nawait asyncio.sleep({rng.choice(['0', '0.001'])})\n"
        'waiting.cancel()\ntry:\n    await waiting\nexcept asyncio.CancelledError:\n    w.log(name, "cancelled")'
    )
    return [
        Node('child = await spawn_process(w, "cat")'),
        Node(attempt),
        Node("out, err = await child.communicate(b'after')"),
        Node('w.log(name, "after it", out, err, child.returncode)'),
    ]


def _refused(rng: random.Random) -> list[Node]:
    text = (
        'try:\n    await spawn_process(w, "/nothing/there")\nexcept OSError as error:\n'
        "    w.log(name, type(error).__name__, error.filename)"
    )
    return [Node(text)]


_CHILDREN: list[Callable[[random.Random], list[Node]]] = [_communicate, _communicate, _end, _talk, _cancel, _refused]


def threads(rng: random.Random) -> Program:
    """A program of one to three threads that call into the loop, and of work that is done in others."""
    body = []
    for number in range(rng.randint(1, 3)):
        name = f"thread{number}"
        lines = []
        for _ in range(rng.randint(1, 4)):
            lines.append(Node(_in_thread(rng, name)))
        work = Node(f"def work{number}():\n    <0>", [lines])
        waits = rng.choice([f"asyncio.to_thread(work{number})", f"w.loop.run_in_executor(None, work{number})"])
        task = Node(f'async def {name}():\n    w.log("{name}-task", await {waits})')
        body += [work, task, Node(f'w.spawn("{name}-task", {name}())')]
    for number in range(rng.randint(0, 2)):
        body.append(Node(f"async def busy{number}():\n    for _ in range(50):\n        await asyncio.sleep(0)"))
        body.append(Node(f'w.spawn("busy{number}", busy{number}())'))
    return Program(body, "real")


def _in_thread(rng: random.Random, name: str) -> str:
    later = f'w.loop.call_soon_threadsafe(w.log, "{name}", "call", {{}})'
    return rng.choice(
        [
            f"for number in range({rng.randint(1, 30)}):\n    {later.format('number')}",
            f"cancelled = {later.format('-1')}\nw.loop.call_soon_threadsafe(w.log, '{name}', 'other')",
            f'w.log("{name}", "result", asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 7), w.loop).result(20))',
            f'w.loop.call_soon_threadsafe(w.raiser, "{name}-raiser")',
            f"future = asyncio.run_coroutine_threadsafe(asyncio.sleep(1000), w.loop)\n"
            f'w.log("{name}-future", "cancel", future.cancel(), future.cancelled())',
        ]
    )


def datagrams(rng: random.Random) -> Program:
    """A program of two endpoints, each of which sends when the other has heard."""
    wire = rng.choice(["udp", "udp", "connected", "unix"])
    parts: tuple[list[Node], list[Node]] = ([], [])
    for number in range(rng.randint(1, 6)):
        actor = rng.randrange(2)
        sizes = [rng.choice([1, 10, 500, 1400, 5000]) for _ in range(rng.randint(1, 5))]
        writes = [f"end.send(pattern({rng.randrange(99)}, {size}))" for size in sizes]
        if rng.random() < 0.3:
            writes.insert(rng.randrange(len(writes) + 1), "await asyncio.sleep(0)")
        reads = f'for _ in range({len(sizes)}):\n    w.log(name, "heard", digest(await end.hear()))'
        parts[actor].append(Node("\n".join(writes), group=str(number)))
        parts[1 - actor].append(Node(reads, group=str(number)))
    for part in parts:
        part.append(Node("await end.close()"))
    body = [
        Node(f"async def {name}(end, name):\n    <0>", [part])
        for name, part in zip(("one", "other"), parts, strict=True)
    ]
    return Program([*body, Node(f'w.spawn("endpoints", exchange(w, "{wire}", one, other))')], "real")
