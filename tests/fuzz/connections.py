"""Random programs of connections that fail, race or are given up, and of servers that close meanwhile.

Their whole trace is determined: the kernel answers at once on the loopback interface, and time is virtual. Of several
addresses that a name has, some refuse, some never answer, some accept.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

from node import Node, Program

#: What is at a place with a port; and at a path.
KINDS = ["open", "open", "open", "refused", "refused", "silent", "silent", "unreachable", "zero", "strange"]
PATHS = ["open", "open", "refused", "silent", "missing", "missing", "file", "long", "nested"]

#: Addresses that are all this machine's.
ADDRESSES = ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"]

#: What a program may await of a server.
TENDING = ["wait_closed", "start_serving", "serve_forever"]


def connections(rng: random.Random) -> Program:
    """A program of one to four that connect, by names or addresses, and of whoever is in their way."""
    return Program(_Writer(rng).statements(), "virtual")


class _Writer:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.hosts = [f"host{number}" for number in range(rng.randint(1, 3))]
        self.servers = [f"server{number} {rng.choice([*ADDRESSES, 'path'])}" for number in range(rng.randint(0, 2))]
        self.serving: set[str] = set()
        self.ways: list[Callable[[str], str]] = [
            self.to_host, self.to_host, self.to_host, self.to_address, self.to_address, self.to_path, self.streams,
            self.streams_to_path, self.bare, self.secure, self.wrong, self.accepted,
        ]  # fmt: skip

    def statements(self) -> list[Node]:
        body = [Node("places = Places(w)")]
        if self.rng.random() < 0.05:
            body.append(Node("w.loop.set_debug(True)"))
        if sys.version_info >= (3, 12) and self.rng.random() < 0.1:
            body.append(Node("w.loop.set_task_factory(asyncio.eager_task_factory)"))
        for host in self.hosts:
            names = [self.place() for _ in range(self.rng.choice([0, 1, 2, 2, 3, 3, 4, 5]))]
            body.append(Node(f'places.hosts["{host}"] = ({self.rng.choice([0, 0, 1, 3])}, {names})'))
        for server in self.servers:
            options = self.rng.choice(["", "", ", backlog=1", ", start_serving=False"])
            self.serving |= {server} if "False" not in options else set()
            does = self.rng.choice(["close", "close", "abort", "raise", "write_eof", "stay", ""])
            factory = f'places.caller("{server}:", "{does}")'
            body.append(Node(f'w.spawn("{server}", places.serve("{server}", {factory}{options}))', group=server))
        for number in range(self.rng.randint(1, 4)):
            body += self.meeting(f"call{number}")
        for server in self.servers:
            if self.rng.random() < 0.6:
                # On asyncio a connection that is accepted in the very turn of the end waits for the collector.
                close = f'places.close_server, "{server}"'
                body.append(self.in_time(close, server) if server in self.serving else self.sometime(close, server))
            if self.rng.random() < 0.4:
                tends = f'w.spawn, "tending", places.tend("{server}", "{self.rng.choice(TENDING)}")'
                body.append(self.sometime(tends, server))
        if self.rng.random() < 0.15:
            body.append(Node(f'w.spawn("occupier", places.occupied("{self.some(["open", "refused"])}"))'))
        return body

    def meeting(self, name: str) -> list[Node]:
        """One that connects, and perhaps somebody who stops it."""
        connecting = self.rng.choice(self.ways)(name)
        limit = self.rng.choice(["", "", "", "0", "1", "2.5"])
        if limit:
            connecting = f"asyncio.wait_for({connecting}, {limit})"
        then = self.rng.choice(["keep", "close", "close", "abort", "wait", "wait"])
        meets = f'w.spawn, "{name}", places.meet("{name}", lambda: {connecting}, "{then}")'
        call, _, arguments = meets.partition(", ")
        lines = [Node(f"{call}({arguments})", group=name)]
        if self.servers or self.rng.random() < 0.2:  # a server needs some turns before it is there
            turns = self.rng.choice([3, 5, 14])
            lines = [Node(f"async def late_{name}():\n    await pause({turns})\n    <0>", [lines], name)]
            lines.append(Node(f'w.spawn("late_{name}", late_{name}())', group=name))
        if self.rng.random() < 0.5:
            lines.append(self.sometime(f'w.cancel, "{name}"', name))
        return lines

    def sometime(self, call: str, group: str) -> Node:
        """Do something after some time, or some turns."""
        if self.rng.random() < 0.4:
            return self.in_time(call, group)
        return Node(f'w.spawn("later", after({self.rng.randint(0, 24)}, {call}))', group=group)

    def in_time(self, call: str, group: str) -> Node:
        return Node(f"w.loop.call_later({self.rng.choice([0, 0.5, 1, 2, 3])}, {call})", group=group)

    def place(self) -> str:
        kind, address = self.rng.choice(KINDS), self.rng.choice(ADDRESSES)
        return f"{kind}{self.rng.randrange(2)} {address}"

    def some(self, kinds: list[str]) -> str:
        """A place of one of those kinds, or a server."""
        served = [server for server in self.servers if not server.endswith("path")]
        if served and self.rng.random() < 0.6:
            return self.rng.choice(served)
        return f"{self.rng.choice(kinds)}{self.rng.randrange(2)} {self.rng.choice(ADDRESSES)}"

    def path(self) -> str:
        served = [server for server in self.servers if server.endswith("path")]
        if served and self.rng.random() < 0.6:
            return self.rng.choice(served)
        return f"{self.rng.choice(PATHS)}{self.rng.randrange(2)} path"

    def options(self) -> str:
        """Keywords for a connection to a host with several addresses."""
        texts = []
        if self.rng.random() < 0.6:
            texts.append(f"happy_eyeballs_delay={self.rng.choice([0, 0.5, 1, 1, 2, 1000])}")
        if self.rng.random() < 0.3:
            texts.append(f"interleave={self.rng.choice([0, 1, 2])}")
        if self.rng.random() < 0.25:
            texts.append(f"local_addr={self.local()}")
        if sys.version_info >= (3, 12) and self.rng.random() < 0.4:
            texts.append("all_errors=True")
        if self.rng.random() < 0.1:
            texts.append(self.rng.choice(["family=socket.AF_INET", "proto=6", "flags=socket.AI_PASSIVE"]))
        return "".join(f", {text}" for text in texts)

    def local(self) -> str:
        """Where a connection is to come from."""
        return self.rng.choice(
            ['("127.0.0.1", 0)', '("127.0.0.2", 0)', '("::1", 0)', '("host0", 80)', '("nowhere", 80)', '("192.0.2.1", 0)',
             f'places["{self.some(["open", "refused"])}"][:2]']
        )  # fmt: skip

    def caller(self, name: str, *more: str) -> str:
        """A factory of protocols that do one thing or another when they are connected, or what else they may do."""
        ways = ["", "", "", "", "close", "abort", "pause_reading", "raise", "stay", "write_eof", *more]
        does = self.rng.choice(ways)
        return f'places.caller("{name}", "{does}")' if does else f'places.caller("{name}")'

    # Ways to connect.

    def to_host(self, name: str) -> str:
        host = self.rng.choice([*self.hosts, *self.hosts, *self.hosts, "nowhere"])
        # Where a factory fails, asyncio leaves the connection to the collector, which a server would notice.
        return f'w.loop.create_connection({self.caller(name, "fail")}, "{host}", PORT{self.options()})'

    def to_address(self, name: str) -> str:
        place = self.some(["open", "refused", "silent", "unreachable", "zero"])
        options = self.options() if self.rng.random() < 0.4 else ""
        return f'w.loop.create_connection({self.caller(name)}, *places["{place}"][:2]{options})'

    def to_path(self, name: str) -> str:
        return f'w.loop.create_unix_connection({self.caller(name)}, places["{self.path()}"])'

    def streams(self, name: str) -> str:
        if self.rng.random() < 0.5:
            return f'asyncio.open_connection("{self.rng.choice(self.hosts)}", PORT{self.options()})'
        return f'asyncio.open_connection(*places["{self.some(["open", "refused", "silent"])}"][:2])'

    def streams_to_path(self, name: str) -> str:
        return f'asyncio.open_unix_connection(places["{self.path()}"])'

    def bare(self, name: str) -> str:
        place = self.path() if self.rng.random() < 0.3 else self.some(["open", "refused", "silent", "unreachable"])
        return f'places.bare("{place}", keep={self.rng.random() < 0.5})'

    def secure(self, name: str) -> str:
        """TLS with somebody who does not know it, and reads nothing."""
        limit = self.rng.choice(["", ", ssl_handshake_timeout=1"])
        tls = f'ssl=contexts()[1], server_hostname="localhost"{limit}'
        if self.rng.random() < 0.4:
            host = self.rng.choice(self.hosts)
            return f'w.loop.create_connection({self.caller(name)}, "{host}", PORT, {tls}{self.options()})'
        place = f"{self.rng.choice(['open', 'open', 'refused', 'silent'])} {self.rng.choice(ADDRESSES)}"
        return f'w.loop.create_connection({self.caller(name)}, *places["{place}"][:2], {tls})'

    def accepted(self, name: str) -> str:
        return f'places.accepted("{name}", "{self.rng.choice(["", "close", "abort", "raise", "write_eof", "fail"])}")'

    def wrong(self, name: str) -> str:
        """What is refused before anything is tried."""
        arguments = self.rng.choice(
            ['"host0", PORT, sock=w.pair("pair0")[0]', "", '"host0", PORT, server_hostname="host0"',
             '"host0", PORT, ssl_handshake_timeout=1', "None, PORT, ssl=True", '"host0", "no such service"',
             '"127.0.0.1", "no such service"', '"host0"', '"", PORT, local_addr=("nowhere", 80)', '"127.0.0.1", -1']
        )  # fmt: skip
        return f"w.loop.create_connection({self.caller(name)}, {arguments})"
