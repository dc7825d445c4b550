"""Stock loops with a defect each, which the fuzzer must find."""

from __future__ import annotations

import asyncio
from asyncio import selector_events, unix_events
from typing import Any


class Swapping(asyncio.SelectorEventLoop):
    """Now and then runs two callbacks in the wrong order."""

    _turns = 0

    def _run_once(self) -> None:
        self._turns += 1
        ready: Any = self._ready
        if self._turns % 3 == 0 and len(ready) > 1:
            ready[0], ready[1] = ready[1], ready[0]
        super()._run_once()


class LosingCancellations(asyncio.SelectorEventLoop):
    """Now and then has a task that was cancelled go on."""

    def __init__(self) -> None:
        super().__init__()
        count = 0

        class Task(asyncio.Task[Any]):
            def cancel(self, msg: Any = None) -> bool:
                nonlocal count
                count += 1
                return not self.done() if count % 3 == 0 else super().cancel(msg)

        self.set_task_factory(lambda loop, coroutine, **options: Task(coroutine, loop=loop, **options))


class ForgettingTimers(asyncio.SelectorEventLoop):
    """Runs overdue timers in the order in which they were made."""

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return super().call_at(max(when, self.time()), callback, *args, context=context)


class DroppingBytes(asyncio.SelectorEventLoop):
    """Loses the last byte of what is written while the protocol is told to pause."""

    def _make_socket_transport(self, sock: Any, protocol: Any, *arguments: Any, **options: Any) -> Any:
        class Transport(selector_events._SelectorSocketTransport):  # type: ignore[misc, name-defined]
            def write(self, data: Any) -> None:
                super().write(data[:-1] if self._protocol_paused and len(data) > 1 else data)

        return Transport(self, sock, protocol, *arguments, **options)


class ForgettingReaders(asyncio.SelectorEventLoop):
    """Keeps the first callback where another one is to take its place."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        try:
            self._selector.get_key(fd)  # type: ignore[attr-defined]
        except KeyError:
            super().add_reader(fd, callback, *args)


class LeavingGenerators(asyncio.SelectorEventLoop):
    """Does not close the generators that are left when it ends."""

    async def shutdown_asyncgens(self) -> None:
        pass


class IgnoringFamilies(asyncio.SelectorEventLoop):
    """Tries addresses in the resolver's order where families are to take turns."""

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await super().create_connection(protocol_factory, host, port, **(options | {"interleave": 0}))


class AnsweringLate(asyncio.SelectorEventLoop):
    """Tells of a connection one turn after it is there, and so after who has given it up in between."""

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await super().sock_connect(sock, address)
        await asyncio.sleep(0)


class HidingSignals(asyncio.SelectorEventLoop):
    """Has children that a signal ended end by themselves."""

    def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None:
        super()._child_watcher_callback(pid, abs(returncode), transport)  # type: ignore[misc]


class HidingHangUps(asyncio.SelectorEventLoop):
    """Takes the hang-up of a terminal for the end of a file."""

    def _make_read_pipe_transport(self, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None) -> Any:
        class Transport(unix_events._UnixReadPipeTransport):  # type: ignore[misc, name-defined]
            def _close(self, exc: Exception | None) -> None:
                super()._close(None)

        return Transport(self, pipe, protocol, waiter, extra)
