"""Differences that show from inside of the process only."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import textwrap
import traceback
import warnings
import weakref
from typing import Any

from differences import tls
from differences.entry import Entry, Section, probe
from harness import Loop, Recorder, attach, run, turns, unix_pair


def frames_of_the_loop() -> str:
    """The functions between the loop's run and who calls this."""
    names = [frame.name for frame in traceback.extract_stack()[:-2]]
    between = names[len(names) - names[::-1].index("run_forever") :]
    return ", ".join(f"`{name}`" for name in between) or "none"


@probe("frames between `run_forever` and a callback")
def frames_of_a_callback(loop: Loop) -> str:
    seen: list[str] = []
    loop.call_soon(lambda: seen.append(frames_of_the_loop()))
    turns(loop)
    return seen[0]


@probe("frames between `run_forever` and `data_received`")
def frames_of_a_protocol(loop: Loop) -> str:
    near, far = unix_pair()
    seen: list[str] = []

    class Looking(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append(frames_of_the_loop())

    attach(loop, near, Looking)
    far.send(b"data")
    while not seen:
        turns(loop)
    return seen[0]


@probe("a handle is exactly an `asyncio.Handle`")
def handle_class(loop: Loop) -> bool:
    return type(loop.call_soon(int)) is asyncio.Handle


@probe("the class of a stream transport")
def transport_class(loop: Loop) -> str:
    near, _ = unix_pair()
    transport, _ = attach(loop, near)
    return f"`{type(transport).__name__}`"


@probe("a stream transport has `_buffer`")
def transport_buffer(loop: Loop) -> bool:
    near, _ = unix_pair()
    transport, _ = attach(loop, near)
    return hasattr(transport, "_buffer")


@probe("`loop._scheduled` is the same list each time")
def scheduled(loop: Any) -> bool:
    return loop._scheduled is loop._scheduled


@probe("a turn goes through `loop._selector.select`")
def goes_through_the_selector(loop: Any) -> bool:
    calls: list[Any] = []
    original = loop._selector.select
    try:
        loop._selector.select = lambda timeout=None: calls.append(timeout) or original(timeout)
    except AttributeError:
        return False
    turns(loop)
    return bool(calls)


def overridden(loop: Loop, name: str) -> tuple[Any, list[str]]:
    """A loop of a subclass that overrides a method, and a list of its calls."""
    calls: list[str] = []
    base = type(loop)

    def own(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return getattr(base, name)(self, *args, **kwargs)

    return type("Own", (base,), {name: own})(), calls


@probe("calls of an overridden `call_at` for one of `call_later`")
def calls_of_call_at(loop: Loop) -> int:
    own, calls = overridden(loop, "call_at")
    own.call_later(1, int)
    return len(calls)


@probe("calls of an overridden `_run_once` in a run of five turns")
def calls_of_run_once(loop: Loop) -> int:
    own, calls = overridden(loop, "_run_once")
    left = [own.stop] + [None] * 4

    def step() -> None:
        act = left.pop()
        if act is None:
            own.call_soon(step)
        else:
            act()

    own.call_soon(step)
    own.run_forever()
    return len(calls)


@probe("calls of an overridden `call_soon` with `connection_made`")
def calls_of_call_soon(loop: Loop) -> int:
    names: list[str] = []

    class Own(type(loop)):  # type: ignore[misc]
        def call_soon(self, callback: Any, *args: Any, **kwargs: Any) -> Any:
            names.append(getattr(callback, "__name__", ""))
            return super().call_soon(callback, *args, **kwargs)

    near, _ = unix_pair()
    attach(Own(), near)
    return names.count("connection_made")


@probe("a `time` put into the `__dict__` of a running loop moves its timers")
def time_of_a_running_loop(loop: Loop) -> bool:
    fired: list[bool] = []

    def jump() -> None:
        loop.call_later(1000, fired.append, True)
        vars(loop)["time"] = lambda: type(loop).time(loop) + 2000
        loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)

    loop.call_soon(jump)
    loop.run_forever()
    return bool(fired)


@probe("a handle that waits is in `gc.get_objects()`")
def seen_by_the_collector(loop: Loop) -> bool:
    handle = loop.call_soon(int)
    return any(found is handle for found in gc.get_objects())


@probe("timers in `loop._scheduled` when the one that was set last was cancelled")
def cancelled_at_the_end(loop: Loop) -> int:
    for _ in range(3):
        timer = loop.call_later(1000, int)
    timer.cancel()
    return len(loop._scheduled)


@probe("a loop that nobody has closed is collected, in a cycle with a handle that waits and is kept")
def collected_with_a_handle(loop: Loop) -> bool:
    other = type(loop)()
    gone = weakref.ref(other)
    holder = [other]
    holder.append(other.call_soon(holder.clear))  # type: ignore[arg-type]
    del other, holder
    with warnings.catch_warnings(action="ignore"):
        gc.collect()
    return gone() is None


@probe("calls of Python functions that feed a `StreamReader`")
def calls_that_feed_a_reader(loop: Loop) -> str:
    near, far = unix_pair()
    called: list[str] = []

    async def read() -> None:
        reader, _ = await asyncio.open_connection(sock=near)
        far.send(b"data")
        sys.setprofile(lambda frame, event, _: event == "call" and called.append(frame.f_code.co_name))
        while not reader._buffer:
            await asyncio.sleep(0)
        sys.setprofile(None)

    run(loop, read())
    return ", ".join(f"`{name}`" for name in ("data_received", "feed_data") if name in called) or "none"


@probe("a socket is registered after a `sock_recv` that waited")
def kept_watcher(loop: Any) -> bool:
    near, far = unix_pair()

    async def receive() -> None:
        task = asyncio.ensure_future(loop.sock_recv(near, 100))
        await asyncio.sleep(0)
        far.send(b"data")
        await task

    run(loop, receive())
    return near.fileno() in loop._selector.get_map()


@probe("the packet behind the one that wakes a task, on a pipe that has been no pipe of packets")
def packet_behind(loop: Loop) -> str:
    far, near = os.pipe()
    behind: list[bytes] = []

    async def read() -> None:
        reader = asyncio.StreamReader()
        pipe = os.fdopen(far, "rb", 0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)

        async def receive() -> None:
            await reader.read(100)
            loop.call_soon(lambda: behind.append(bytes(reader._buffer)))

        for packets in [[b"some"]] * 40 + [[b"some", b"more"]]:
            if len(packets) > 1:
                fcntl.fcntl(near, fcntl.F_SETFL, os.O_DIRECT)
            receiving = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            for packet in packets:
                os.write(near, packet)
            await receiving
            await asyncio.sleep(0)

    run(loop, read())
    return "is there in the next turn" if behind[-1] == b"more" else "comes later"


@probe("calls of a watcher for an event in a turn that `SystemExit` breaks off, and the next turn")
def turn_broken_off(loop: Loop) -> int:
    near, far = unix_pair()
    far.send(b"data")
    calls: list[int] = []
    loop.add_reader(near, calls.append, 1)

    def leave() -> None:
        raise SystemExit

    loop.call_soon(leave)
    try:
        loop.run_forever()
    except SystemExit:
        turns(loop)
    return len(calls)


@probe("turns from a signal to its handler, where a thread-safe call has just come in")
def turns_to_a_signal_handler(loop: Loop) -> int:
    turn = 0
    seen: list[int] = []

    def send() -> None:
        seen.append(turn)
        os.kill(os.getpid(), signal.SIGUSR1)

    loop.add_signal_handler(signal.SIGUSR1, lambda: seen.append(turn))
    loop.call_soon_threadsafe(send)
    while len(seen) < 2:
        turns(loop)
        turn += 1
    return seen[1] - seen[0]


@probe("of 600 ready descriptors, those handled in one turn")
def ready_descriptors(loop: Loop) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    near, far = socket.socketpair()
    far.send(b"data")
    handled: list[int] = []
    for _ in range(600):
        number = fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 0)
        loop.add_reader(number, handled.append, number)
    most = 0
    while len(set(handled)) < 600:
        before = len(handled)
        turns(loop)
        most = max(most, len(handled) - before)
    return most


def import_elsewhere(name: str) -> str:
    """How the import of a module ends in a second interpreter of this process."""
    reading, writing = os.pipe()
    script = textwrap.dedent(f"""
        import os
        try:
            import {name}
            os.write({writing}, b"goes well")
        except ImportError:
            os.write({writing}, b"`ImportError`")
    """)
    if sys.version_info >= (3, 13):
        import _interpreters

        _interpreters.exec(_interpreters.create("legacy"), script)
    else:
        import _xxsubinterpreters

        _xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=False), script)
    return os.read(reading, 100).decode()


@probe("the loop's package imported in a second interpreter of the process")
def second_interpreter(loop: Loop) -> str:
    return import_elsewhere(type(loop).__module__.partition(".")[0])


SECTIONS = [
    Section(
        "What looks different from inside",
        Entry(
            """
            **Tracebacks and profiles** of a callback have no `Handle._run` frame, and those of a protocol no
            `_read_ready` frame: these frames do not exist. Where a tool has replaced `Handle._run`, the replacement is
            called for each handle.
            """,
            frames_of_a_callback,
            frames_of_a_protocol,
            "test_errors.py::test_tracebacks_have_no_frame_of_the_loop_that_misleads",
            "test_handles.py::test_a_replaced_run_method_is_called",
        ),
        Entry(
            """
            **Types**: handles are of subclasses of `asyncio.Handle` and `asyncio.TimerHandle`; a stream transport is an
            `asyncio.Transport`, but no `_SelectorSocketTransport`, although its `repr` says so. So with the transports
            of pipes and of datagrams.
            """,
            handle_class,
            transport_class,
            "test_native_types.py::test_the_types_are_asyncios",
            "test_stream_transport.py::test_is_a_transport_of_asyncio",
        ),
        Entry(
            """
            **TLS**: the connection is an `SSLProtocol` and its transport an `_SSLProtocolTransport`, both of subclasses.
            `_write_backlog` is a list made when asked; `max_size` is 0.
            """,
            tls.tls_class,
            tls.tls_max_size,
            "test_tls.py::test_the_types_that_programs_look_for",
        ),
        Entry(
            """
            **Private attributes**: those of pipes have `_pipe`, `_fileno`, `_loop`, `_protocol`, `_closing`, and
            `_paused` or `_conn_lost`. Socket transports have `_sock`, `_sock_fd`, `_server`, `_loop`, `_protocol`,
            `_conn_lost`, `_closing`, `_paused`, `_eof` and `_extra`, to be read; they have no `_buffer`. `loop._ready`
            is a view that makes a list when asked, and `loop._scheduled` is a copy.
            """,
            transport_buffer,
            scheduled,
            "test_stream_transport.py::test_private_attributes_that_programs_look_at",
            "test_traps.py::test_private_attributes_answer_as_on_stock_asyncio",
        ),
        Entry(
            """
            `loop._selector` has `register`, `unregister`, `get_key` and `get_map`, whose keys name what was registered,
            and its `select` asks the kernel, as a program may; the loop does not go through it unless it was given one
            that waits itself.
            """,
            goes_through_the_selector,
            "test_watchers.py::test_the_map_of_watched_descriptors_is_readable",
        ),
        Entry(
            """
            **Turns of a tool's own** (nest_asyncio's) work where they take callbacks out of `_ready`, timers out of
            `_scheduled`, and wait by `_selector.select`, which then answers an empty list: one more callback handles what
            was found. They do not on a loop that was given a selector that waits itself.
            """,
            "test_jupyter.py::test_a_loop_runs_inside_of_itself",
        ),
        Entry(
            """
            **Subclasses**: a loop that overrides `call_soon`, `call_at` or `_run_once` sees fewer calls of them.
            Transports schedule `connection_made` and `connection_lost` natively, `call_later` does not go through
            `call_at`, and one call of `_run_once` within `run_forever` runs all turns. An overridden `time()` is heeded;
            one that is put straight into the loop's `__dict__` while it runs, from the next run on.
            """,
            calls_of_call_soon,
            calls_of_call_at,
            calls_of_run_once,
            time_of_a_running_loop,
            "test_connect.py::test_a_method_of_ones_own_is_called_for_connections",
            "test_accept.py::test_a_method_of_ones_own_is_called_for_accepted_connections",
            "test_timers.py::test_a_time_of_a_subclass_moves_the_scheduler",
        ),
        Entry(
            """
            **The garbage collector**: handles and timers that wait are not in `gc.get_objects()`; `gc.get_referents` of
            their loop has them, or what they call where nobody else has the handle. So a cycle of a loop that nobody has
            closed, and of a handle that waits in it and is kept, stays until the handle has run or is cancelled: to have
            the collector see each handle would cost a third of what a callback does.
            """,
            seen_by_the_collector,
            collected_with_a_handle,
            "test_native_types.py::test_a_loop_in_a_cycle_is_collected",
            "test_handles.py::test_a_cycle_through_dropped_callbacks_is_collected",
        ),
        Entry(
            """
            **Handles that were dropped**: a callback whose handle nobody has kept waits without one, and has one again,
            as it was, for who looks at `loop._ready`, for debug mode, for an exception that is reported and for a
            replaced `Handle._run`.
            """,
            "test_handles.py::test_a_handle_that_was_dropped_is_there_for_who_looks_at_the_queue",
            "test_handles.py::test_a_handle_that_was_dropped_is_run_by_a_replaced_method",
            "test_handles.py::test_a_handle_that_was_dropped_before_debug_mode_is_run_in_it",
            "test_handles.py::test_the_handle_of_a_dropped_callback_that_failed_is_whole",
        ),
        Entry(
            """
            **Cancelled timers** leave `loop._scheduled` at once, and their `_scheduled` is false, if they were the last
            of the heap, as time limits are that are not reached. asyncio keeps them until its next turn or longer.
            """,
            cancelled_at_the_end,
            "test_timers.py::test_a_time_limit_that_is_not_reached_takes_no_room",
        ),
        Entry(
            """
            **`StreamReader`**: where it and its protocol are asyncio's own and unpatched, received bytes are put into it
            without a call of `data_received` or `feed_data`.
            """,
            calls_that_feed_a_reader,
            "test_stream_transport.py::test_a_subclassed_stream_reader_sees_its_own_methods_called",
            "test_stream_transport.py::test_a_stream_reader_patched_on_the_instance_or_the_class_is_called",
        ),
        Entry(
            """
            **Kept watchers**: after a `sock_recv`, `sock_recv_into`, `sock_recvfrom`, `sock_recvfrom_into`,
            `sock_recvmsg` or `sock_accept` that had to wait, the descriptor stays registered for the next one and shows
            in `loop._selector.get_map()`. `remove_reader` answers `False` for it, as if it were not there.
            """,
            kept_watcher,
            "test_sock.py::test_cancelling_what_reads_leaves_no_watcher",
            "test_sock.py::test_a_number_used_again_is_watched_anew",
        ),
        Entry(
            """
            **Pipes that become packet pipes** (`O_DIRECT`) after their first reads: a packet behind the one that wakes a
            task may be told one turn later, on a selector loop. On one that has been of packets from the first it is told
            as on asyncio.
            """,
            packet_behind,
            "test_pipes.py::test_what_lies_behind_the_bytes_that_wake_a_reader_comes_in_the_turn_of_who_is_woken",
        ),
        Entry(
            """
            **A turn that an exception breaks off** (`KeyboardInterrupt` or `SystemExit` out of a callback) leaves its I/O
            to the next run. asyncio calls such a watcher twice, for the event of that turn and for that of the next;
            hotloop calls it once, together with what the kernel has found since.
            """,
            turn_broken_off,
        ),
        Entry(
            """
            **Signal handlers** of `add_signal_handler` run as many turns after the signal as on asyncio, but for one:
            there a thread-safe call that is under way has a signal handled a turn earlier, for both come through one
            self-pipe.
            """,
            turns_to_a_signal_handler,
        ),
        Entry(
            """
            **More than 512 ready descriptors**: the rest are handled in the turns that follow at once, not in the same
            one.
            """,
            ready_descriptors,
        ),
        level=2,
    ),
    Section(
        "Not as it should be yet",
        """
        **Free-threaded Python**: importing hotloop switches the interpreter lock on. The extension compiles for it, and
        has not run on it: none was at hand.

        **Platforms**: Linux only ([platforms.md](platforms.md)).
        """,
        Entry(
            "**Subinterpreters**: hotloop can be imported in one interpreter of a process only.",
            second_interpreter,
        ),
        level=2,
    ),
]
