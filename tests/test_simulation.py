"""A chat server, simulated: many seeds, a bad network, and invariants that hold all the same.

`make test` runs 100 seeds; `HOTLOOP_SEEDS=1000` runs as many as it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import pytest

from hotloop import testing

SEEDS = int(os.environ.get("HOTLOOP_SEEDS", "100"))

FAULTS = testing.Faults(delay=(0.0, 0.05), loss=0.05, reset=0.01, refuse=0.05, split=20)

CLIENTS, NAMES, MESSAGES = 6, 4, 5


class Chat:
    """A chat server: a first line with a name, then what its member says, which all are told in one order."""

    def __init__(self) -> None:
        self.members: list[tuple[str, asyncio.StreamWriter]] = []
        self.said: list[bytes] = []
        # Names of members, and of those who are about to be some.
        self.taken: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            name = (await reader.readline()).decode()
            if name.endswith("\n") and await self.join(name, writer):
                await self.hear(name, reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def join(self, name: str, writer: asyncio.StreamWriter) -> bool:
        if name in self.taken:
            writer.write(b"taken\n")
            return False
        self.taken.add(name)
        await self.look_up(name)
        self.welcome(name, writer)
        return True

    def welcome(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.members.append((name, writer))
        writer.write(b"welcome\n")

    async def look_up(self, name: str) -> None:
        """Ask somebody whether the name is allowed."""
        await asyncio.sleep(0.005)

    async def hear(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self.said.append(line)
                for _, member in self.members:
                    member.write(line)
        finally:
            self.members.remove((name, writer))
            self.taken.discard(name)


class HastyChat(Chat):
    """A planted defect: between the look at the names and the entry of a new one, others run."""

    async def join(self, name: str, writer: asyncio.StreamWriter) -> bool:
        if name in self.taken:
            writer.write(b"taken\n")
            return False
        await self.look_up(name)
        self.taken.add(name)
        self.welcome(name, writer)
        return True


class Client:
    """Somebody who joins, says some lines, listens for a while and leaves."""

    def __init__(self, number: int, chance: Any) -> None:
        self.number, self.chance = number, chance
        self.name = f"member {number % NAMES}\n".encode()
        self.heard: list[bytes] = []
        self.broken = False

    async def live(self, address: tuple[str, int]) -> None:
        await asyncio.sleep(self.chance.uniform(0, 0.5))
        try:
            reader, writer = await asyncio.open_connection(*address)
        except ConnectionRefusedError:
            self.broken = True
            return
        listening = asyncio.ensure_future(self.listen(reader))
        try:
            writer.write(self.name)
            for number in range(MESSAGES):
                await asyncio.sleep(self.chance.uniform(0, 1))
                writer.write(b"%d of %d\n" % (number, self.number))
            # Hours of silence cost nothing.
            await asyncio.sleep(3600)
        finally:
            writer.close()
            await listening
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self.heard.append(line)
        except ConnectionError:
            self.broken = True


def look_at_members(chat: Chat) -> None:
    names = [name for name, _ in chat.members]
    assert len(names) == len(set(names)), f"two members with one name: {names}"


def look_at_client(chat: Chat, client: Client) -> None:
    """What a client hears is a section of what was said, without gap, doubling or change of order."""
    if not client.heard or client.heard[0] == b"taken\n":
        assert client.heard in ([], [b"taken\n"])
        return
    assert client.heard[0] == b"welcome\n"
    heard = client.heard[1:]
    if heard:
        begin = chat.said.index(heard[0])
        assert chat.said[begin : begin + len(heard)] == heard
    if not client.broken:
        own = [line for line in heard if line.endswith(b" of %d\n" % client.number)]
        assert len(own) == MESSAGES, "somebody whose connection held was not heard"


async def chat_about(chat: Chat) -> list[bytes]:
    loop: Any = asyncio.get_running_loop()
    server = await asyncio.start_server(chat.serve, "chat.example", 7000)
    clients = [Client(number, loop.random) for number in range(CLIENTS)]
    lives = asyncio.gather(*(client.live(("chat.example", 7000)) for client in clients))
    while not lives.done():
        look_at_members(chat)
        await asyncio.sleep(0.01 if loop.time() < 6 else 100)
    await lives
    for client in clients:
        look_at_client(chat, client)
    assert len(chat.said) == len(set(chat.said))
    server.close()
    await server.wait_closed()
    # What is still under way arrives, and every connection comes to its end.
    await asyncio.sleep(100)
    assert chat.members == []
    assert chat.taken == set()
    assert loop.network.connections == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return chat.said


@pytest.mark.timeout(max(60, SEEDS))
def test_a_chat_keeps_its_promises_on_a_bad_network(no_leaks):
    testing.simulate(lambda: chat_about(Chat()), seeds=SEEDS, faults=FAULTS)


def test_a_planted_defect_is_found_and_its_seed_finds_it_again(no_leaks, monkeypatch):
    def simulate() -> tuple[str, list[str]]:
        with pytest.raises(AssertionError) as caught:
            testing.simulate(lambda: chat_about(HastyChat()), seeds=200, faults=FAULTS)
        # pytest adds to the text where it was raised.
        return str(caught.value).splitlines()[0], caught.value.__notes__

    found, notes = simulate()
    assert "two members with one name" in found
    (replay,) = [note for note in notes if note.startswith("HOTLOOP_SEED=")]
    seed = replay.split()[0].removeprefix("HOTLOOP_SEED=")
    monkeypatch.setenv("HOTLOOP_SEED", seed)
    for _ in range(2):
        again, notes = simulate()
        assert again == found
        assert replay in notes


def test_one_seed_is_one_history(no_leaks):
    histories = [testing.run(chat_about(Chat()), seed=seed, faults=FAULTS) for seed in (1, 1, 2)]
    assert histories[0] == histories[1] != histories[2]
    assert histories[0]
