"""Child processes: how a loop hears of their end.

Each child has a descriptor of the kernel's (a pidfd) that is readable once the child has ended, and which the loop
watches as it watches sockets: no thread for a child, and no signal.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from asyncio import unix_events
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._hotloop import reap

if TYPE_CHECKING:
    from ._loop import EventLoop

#: What is told of a child's end: its number, its exit status as ``subprocess`` gives it, and what came with it.
Told = Callable[..., object]


# asyncio's own from Python 3.14 on, which a loop has as its `_watcher`.
_PidfdChildWatcher: type[Any] = getattr(unix_events, "_PidfdChildWatcher", object)


class Children(_PidfdChildWatcher):  # type: ignore[misc]
    """The children whose end a loop waits for. It has the interface of asyncio's own watcher of children."""

    def __init__(self, loop: EventLoop) -> None:
        # The loop has this one: a reference back would keep a closed loop until the collector comes.
        self._owner = weakref.ref(loop)
        # The descriptors of those that have not ended yet, as far as the loop knows.
        self._pidfds: set[int] = set()
        # asyncio's watcher with a thread for each child, for where the kernel gives no descriptor.
        self._threads: Any = None

    @property
    def _loop(self) -> EventLoop:
        loop = self._owner()
        if loop is None:
            raise RuntimeError("Event loop is closed")
        return loop

    def add_child_handler(self, pid: int, told: Told, *args: Any) -> None:
        """Have ``told(pid, returncode, *args)`` called when a child has ended, and reap it."""
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, AttributeError):
            # A kernel before 5.3, a filter in front of it, no descriptor left, a child that is gone already.
            if self._threads is None:
                self._threads = _threaded_watcher()
            self._threads.add_child_handler(pid, told, *args)
            return
        self._pidfds.add(pidfd)
        self._loop._add_reader(pidfd, self._ended, pidfd, pid, told, args)

    def close(self) -> None:
        """Close what is still open. Children go on; ``subprocess.Popen`` reaps them later."""
        while self._pidfds:
            os.close(self._pidfds.pop())

    def _ended(self, pidfd: int, pid: int, told: Told, args: tuple[Any, ...]) -> None:
        self._loop._remove_reader(pidfd)
        self._pidfds.discard(pidfd)
        try:
            returncode = _reap(pidfd, pid)
        finally:
            os.close(pidfd)
        if returncode is None:
            returncode = _known_status(args)
        if returncode is None:
            logger.warning("child process pid %d exit status already read:  will report returncode 255", pid)
            returncode = 255
        told(pid, returncode, *args)


def is_by_descriptor(watcher: object) -> bool:
    """Whether asyncio has chosen descriptors to watch children by (from Python 3.14 on)."""
    return isinstance(watcher, _PidfdChildWatcher)


def has_own_watcher() -> bool:
    """Whether the program has chosen how the end of children is watched for (Python 3.11 to 3.13).

    asyncio's default watchers are no choice: they are what a policy makes when it is asked for one.
    """
    if sys.version_info >= (3, 14):
        return False
    policy: Any = asyncio.get_event_loop_policy()
    getter = type(policy).get_child_watcher
    if getter is asyncio.AbstractEventLoopPolicy.get_child_watcher:
        return False
    if getter is not unix_events.DefaultEventLoopPolicy.get_child_watcher:
        return True
    watcher = policy._watcher
    return not (watcher is None or type(watcher) in (unix_events.ThreadedChildWatcher, unix_events.PidfdChildWatcher))


async def spawn(loop: EventLoop, children: Children, *args: Any, **kwargs: Any) -> asyncio.SubprocessTransport:
    """Make the transport of a child (Python 3.11 to 3.13, whose own way asks the policy for a watcher)."""
    connected, ended = loop.create_future(), loop.create_future()
    transport = _UnixSubprocessTransport(loop, *args, waiter=connected, **kwargs)

    def told(pid: int, returncode: int, transport: Any) -> None:
        loop._child_watcher_callback(pid, returncode, transport)
        if not ended.done():
            ended.set_result(None)

    children.add_child_handler(transport.get_pid(), told, transport)
    try:
        await connected
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:
        transport.close()
        # Not the transport's own wait, which on these versions is for pipes too that were never connected.
        await asyncio.shield(ended)
        raise
    return transport


def _reap(pidfd: int, pid: int) -> int | None:
    """Take the exit status of a child that has ended; ``None`` if somebody else has taken it."""
    try:
        # By descriptor: the number may be another child's by now.
        return reap(pidfd)
    except ChildProcessError:
        return None
    except OSError:
        # Linux 5.3 has the descriptors, but does not wait for them.
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None


def _known_status(args: tuple[Any, ...]) -> int | None:
    """The status of a child that its own `subprocess.Popen` has reaped, as closing a transport makes it do."""
    for transport in args:
        process = getattr(transport, "_proc", None)
        if process is not None:
            return process.returncode  # type: ignore[no-any-return]
    return None


class _UnixSubprocessTransport(unix_events._UnixSubprocessTransport):  # type: ignore[name-defined, misc]
    """asyncio's transport of a child, with two corrections that Python 3.14 has."""

    if TYPE_CHECKING:
        _pipes: dict[int, Any]

    def close(self) -> None:
        """Kill the child, if it runs still, and close its pipes."""
        pipes = self._pipes
        if self._loop is None or self._loop.is_closed():
            # A loop that is closed takes no news of pipes, and the complaint would come before the child is killed.
            self._pipes = {}
        try:
            super().close()
        finally:
            self._pipes = pipes

    async def _connect_pipes(self, waiter: asyncio.Future[None]) -> None:
        await super()._connect_pipes(_PipesWaiter(self, waiter))

    def close_unconnected(self) -> None:
        """Close the pipes that were not connected, where connecting them has failed or was cancelled."""
        process = self._proc
        if process is None:
            return
        for fd, pipe in enumerate((process.stdin, process.stdout, process.stderr)):
            if pipe is not None and self._pipes.get(fd) is None:
                pipe.close()


class _PipesWaiter:
    """What the task that connects the pipes of a child reports to: a future, by whose end the caller goes on.

    The caller may have been cancelled, and the future with it, when connecting fails.
    """

    def __init__(self, transport: _UnixSubprocessTransport, connected: asyncio.Future[None]) -> None:
        self._transport = transport
        self._connected = connected

    def cancelled(self) -> bool:
        """That of a future: whether nobody is to be told. The transport is, always."""
        return False

    def set_result(self, _: None) -> None:
        """All pipes are connected."""
        if not self._connected.done():
            self._connected.set_result(None)

    def set_exception(self, error: BaseException) -> None:
        """One is not, and none after it."""
        self._transport.close_unconnected()
        if not self._connected.done():
            self._connected.set_exception(error)


def _threaded_watcher() -> Any:
    """asyncio's watcher with a thread for each child."""
    name = "_ThreadedChildWatcher" if sys.version_info >= (3, 14) else "ThreadedChildWatcher"
    return getattr(unix_events, name)()
