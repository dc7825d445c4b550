"""Subprocesses: how they begin, what they are connected to, and how the loop hears of their end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import gc
import logging
import os
import pathlib
import pty
import signal
import socket
import subprocess
import sys
import threading
import warnings

import pytest

from harness import PATIENCE, asyncio_loop, descriptors, python, run, same_trace_as_stock, turns

#: A child that stays until its standard input ends.
CAT = "/bin/cat"
#: One that ends with status 7 when it is sent a line.
ON_DEMAND = ("/bin/sh", "-c", "read line; exit 7")


class Child(asyncio.SubprocessProtocol):
    """Notes what happens to a child."""

    def __init__(self):
        self.trace = []
        self.output = bytearray()
        self.exited = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.trace.append("connection_made")

    def pipe_data_received(self, fd, data):
        self.output += data

    def pipe_connection_lost(self, fd, exc):
        self.trace.append(f"pipe_connection_lost {fd} {type(exc).__name__}")

    def process_exited(self):
        self.trace.append("process_exited")
        self.exited.set_result(self.transport.get_returncode())

    def connection_lost(self, exc):
        self.trace.append("connection_lost")
        # asyncio warns of a transport that nobody closed, although there is nothing left to close.
        self.transport.close()
        self.lost.set_result(exc)


def spawn(loop, *args, **kwargs):
    """A child and its protocol, without pipes unless asked for."""
    kwargs = {"stdin": None, "stdout": None, "stderr": None} | kwargs
    return run(loop, loop.subprocess_exec(Child, *args, **kwargs))


def output(loop, *args, **kwargs):
    """What a child writes to its standard output."""

    async def communicate():
        process = await asyncio.create_subprocess_exec(*args, stdout=-1, **kwargs)
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out

    return run(loop, communicate())


def say(script, *args):
    """The arguments of a child that runs a script of Python."""
    return sys.executable, "-I", "-c", script, *args


def is_reaped(pid):
    """Whether nothing is left of a child, not even its status."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


@pytest.fixture
def own_watching(loop_name):
    """Skip stock asyncio: the test is about how hotloop watches children, or about what stock asyncio has not."""
    if loop_name == "asyncio":
        pytest.skip("stock asyncio watches children in its own ways, by a thread for each on Python 3.11")


def test_exit_statuses(loop):
    async def statuses():
        found = []
        for script in ("exit 0", "exit 7", "exit 255", "kill -TERM $$", "kill -KILL $$"):
            process = await asyncio.create_subprocess_shell(script)
            found.append(await process.wait())
            assert is_reaped(process.pid)
        return found

    assert run(loop, statuses()) == [0, 7, 255, -15, -9]


def test_many_children_at_once(loop):
    async def all_of_them():
        children = [await asyncio.create_subprocess_exec(CAT, stdin=-1, stdout=-1) for _ in range(30)]
        outputs = await asyncio.gather(*(child.communicate(b"%d" % number) for number, child in enumerate(children)))
        return [int(out) for out, _ in outputs], {child.returncode for child in children}

    assert run(loop, all_of_them()) == (list(range(30)), {0})


@pytest.mark.parametrize("size", [65_536, 65_537, 5_000_000])
def test_communicate_moves_much(loop, size):
    """uvloop#363: more than a pipe holds, there and back."""
    payload = os.urandom(size)

    async def talk():
        process = await asyncio.create_subprocess_exec(CAT, stdin=-1, stdout=-1)
        return (await process.communicate(payload))[0]

    assert run(loop, talk()) == payload


def test_a_child_that_does_not_read_its_input(loop):
    async def talk():
        process = await asyncio.create_subprocess_exec("/bin/true", stdin=-1, stdout=-1)
        return await process.communicate(bytes(1_000_000)), process.returncode

    assert run(loop, talk()) == ((b"", None), 0)


def test_the_streams_of_a_child(loop):
    async def talk():
        process = await asyncio.create_subprocess_exec(
            *say("import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nsys.exit(3)"),
            stdin=-1,
            stdout=-1,
        )
        lines = []
        for word in (b"one\n", b"two\n"):
            process.stdin.write(word)
            await process.stdin.drain()
            lines.append(await process.stdout.readline())
        process.stdin.close()
        return lines, await process.wait()

    assert run(loop, talk()) == ([b"eno\n", b"owt\n"], 3)


def test_standard_streams_are_pipes(loop):
    """uvloop#505: a socket cannot be opened by its name in /proc."""
    script = """
import os, stat
print([stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in range(3)], flush=True)
open("/proc/self/fd/1", "w").write("opened")
"""

    async def talk():
        process = await asyncio.create_subprocess_exec(*say(script), stdin=-1, stdout=-1, stderr=-1)
        return await process.communicate()

    assert run(loop, talk()) == (b"[True, True, True]\nopened", b"")


def test_standard_error_may_go_to_standard_output(loop):
    assert output(loop, "/bin/sh", "-c", "echo one; echo two >&2", stderr=asyncio.subprocess.STDOUT) == b"one\ntwo\n"


def test_a_terminal_as_standard_streams(loop, no_leaks):
    near, far = pty.openpty()
    transport, child = spawn(loop, *say("import os; print(os.isatty(0), os.isatty(1))"), stdin=far, stdout=far)
    assert run(loop, child.exited) == 0
    assert os.read(near, 100) == b"True True\r\n"
    transport.close()
    turns(loop, 3)
    os.close(near)
    os.close(far)


def test_what_popen_takes(loop, tmp_path, no_leaks):
    """zuvloop#39, zuvloop#56, zuvloop#59, uvloop#439"""
    (tmp_path / "inside").touch()
    assert output(loop, "/bin/ls", cwd=tmp_path) == b"inside\n"
    assert output(loop, "/usr/bin/env", env={}) == b""
    assert output(loop, "/usr/bin/env", env={"A": "b"}) == b"A=b\n"
    assert output(loop, pathlib.Path("/bin/echo"), "-n", b"bytes", pathlib.Path("path")) == b"bytes path"
    assert output(loop, "/bin/sh", "-c", "umask", umask=0o027).strip() == b"0027"
    script = "import os; print(os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid())"
    assert output(loop, *say(script), process_group=0) == b"True False\n"
    assert output(loop, *say(script), start_new_session=True) == b"True True\n"
    assert output(loop, *say("print(5)"), preexec_fn=lambda: None) == b"5\n"


def test_descriptors_are_passed_on(loop, no_leaks):
    read, write = os.pipe()
    script = "import os, sys; os.write(int(sys.argv[1]), b'from the child')"
    assert output(loop, *say(script, str(write)), pass_fds=[write]) == b""
    assert os.read(read, 100) == b"from the child"
    os.set_inheritable(write, True)
    script = "import os, sys\ntry: os.fstat(int(sys.argv[1]))\nexcept OSError: print('closed')"
    assert output(loop, *say(script, str(write))) == b"closed\n"
    assert output(loop, *say(script, str(write)), close_fds=False) == b""
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_socket_keeps_its_mode(loop, no_leaks, blocking):
    """zuvloop#56: as a standard stream, in the parent and in the child."""
    near, far = socket.socketpair()
    near.setblocking(blocking)
    transport, child = spawn(loop, *say("import os; print(os.get_blocking(0), flush=True)"), stdin=near, stdout=near)
    assert run(loop, child.exited) == 0
    assert far.recv(100) == b"%r\n" % blocking
    assert bool(fcntl.fcntl(near, fcntl.F_GETFL) & os.O_NONBLOCK) is not blocking
    transport.close()
    turns(loop, 3)
    near.close()
    far.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_child_of_somebody_else(loop):
    command = "id -u; id -g; id -G"
    assert (
        output(loop, "/bin/sh", "-c", command, user=65534, group=65534, extra_groups=[12])
        == b"65534\n65534\n65534 12\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [("\0",), ("/bin/echo", "a\0b"), ("/nonexistent/program",), ("/",), ("/bin/echo", 5)],
    ids=["NUL", "NUL in an argument", "missing", "directory", "number"],
)
def test_a_program_that_cannot_be_started(loop, no_leaks, arguments):
    def scenario(loop, trace):
        async def start():
            with pytest.raises((OSError, ValueError, TypeError)) as error:
                await asyncio.create_subprocess_exec(*arguments, stdin=-1, stdout=-1, stderr=-1)
            trace.append(f"{error.type.__name__} {error.value}")

        run(loop, start())

    same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize(
    "options", [{"cwd": "/nonexistent"}, {"env": {"a=b": "c"}}, {"env": {"a": "\0"}}, {"pass_fds": [-1]}], ids=str
)
def test_options_that_cannot_be(loop, no_leaks, options):
    def scenario(loop, trace):
        async def start():
            with pytest.raises((OSError, ValueError)) as error:
                await asyncio.create_subprocess_exec("/bin/true", stdin=-1, **options)
            trace.append(f"{error.type.__name__} {error.value}")

        run(loop, start())

    same_trace_as_stock(loop, scenario)


def test_programs_that_cannot_be_started_leak_nothing(loop, no_leaks):
    """uvloop#185, uvloop#466, uvloop#481: ten thousand there, five hundred here, each with three pipes and a canary."""

    async def fail():
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/nonexistent/program", stdin=-1, stdout=-1, stderr=-1)

    run(loop, fail())
    gc.collect()
    before = descriptors()

    async def fail_often():
        for _ in range(500):
            canary = os.open("/dev/null", os.O_RDONLY)
            await fail()
            os.close(canary)  # fails where somebody closed it meanwhile

    run(loop, fail_often())
    gc.collect()
    assert descriptors() == before


def test_a_spawn_without_descriptors_left(loop, no_leaks):
    """Whichever of its descriptors is refused, nothing is left open, and the loop goes on."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def start():
        try:
            process = await asyncio.create_subprocess_exec("/bin/true", stdin=-1, stdout=-1, stderr=-1)
        except OSError as error:
            return error.errno
        await process.communicate()
        return process.returncode

    run(loop, start())
    gc.collect()
    before = descriptors()
    outcomes = set()
    for room in range(12):
        filled = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        number = os.open("/dev/null", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1 + room, hard))
        try:
            outcomes.add(run(loop, start()))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in (*filled, number):
                os.close(fd)
        gc.collect()
        turns(loop, 3)
        assert descriptors() == before
    assert outcomes == {errno.EMFILE, 0}


def test_the_end_of_a_child_is_told_after_close(loop):
    """uvloop#128: the child is killed, and nothing of it is left."""
    transport, child = spawn(loop, CAT, stdin=-1, stdout=-1)
    pid = transport.get_pid()
    transport.close()
    run(loop, child.lost)
    assert run(loop, child.exited) == -signal.SIGKILL
    assert sorted(child.trace) == [
        "connection_lost",
        "connection_made",
        "pipe_connection_lost 0 NoneType",
        "pipe_connection_lost 1 NoneType",
        "process_exited",
    ]
    assert is_reaped(pid)


def test_a_child_that_ended_before_close_keeps_its_status(loop, own_watching, caplog):
    """Closing a transport asks `Popen` for the status, which reaps: it is known all the same."""
    transport, child = spawn(loop, *ON_DEMAND, stdin=-1)
    transport.get_pipe_transport(0).write(b"\n")
    os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
    transport.close()
    assert run(loop, child.exited) == 7
    run(loop, child.lost)
    assert caplog.messages == []


def test_a_child_that_somebody_else_reaped(loop, own_watching, caplog):
    """Its status is lost: 255 and a warning, in asyncio's words."""
    transport, child = spawn(loop, *ON_DEMAND, stdin=-1)
    pid = transport.get_pid()
    transport.get_pipe_transport(0).write(b"\n")
    os.waitpid(pid, 0)
    assert run(loop, child.exited) == 255
    assert caplog.messages == [f"child process pid {pid} exit status already read:  will report returncode 255"]
    transport.close()
    turns(loop, 3)


def test_a_child_that_nobody_may_wait_for(loop, loop_name, caplog):
    """With SIGCHLD ignored the kernel reaps children by itself, and their status is lost."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        transport, child = spawn(loop, CAT, stdin=-1)
        transport.get_pipe_transport(0).close()
        assert run(loop, child.exited) == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
    run(loop, child.lost)
    assert "will report returncode 255" in caplog.text


def test_the_status_is_asked_for_by_descriptor(loop, own_watching, monkeypatch):
    """zuvloop#82: the number may be another child's by then."""
    transport, child = spawn(loop, CAT, stdin=-1)
    asked = []
    monkeypatch.setattr(os, "waitpid", lambda *args: asked.append(args))
    transport.get_pipe_transport(0).close()
    assert run(loop, child.exited) == 0
    assert asked == []
    run(loop, child.lost)


def test_no_thread_and_no_signal_handler(loop, own_watching):
    before = threading.active_count(), signal.getsignal(signal.SIGCHLD)
    transport, child = spawn(loop, CAT, stdin=-1)
    assert (threading.active_count(), signal.getsignal(signal.SIGCHLD)) == before
    assert loop._signal_handlers == {}
    transport.close()
    run(loop, child.lost)


@pytest.mark.parametrize("way", ["signal.signal", "loop.add_signal_handler"])
def test_a_handler_of_sigchld_is_the_programs(loop, way):
    """uvloop#409, uvloop#582: it is called, and the loop hears of its children all the same."""
    called = []
    before = signal.getsignal(signal.SIGCHLD)
    if way == "signal.signal":
        signal.signal(signal.SIGCHLD, lambda *_: called.append(True))
    else:
        loop.add_signal_handler(signal.SIGCHLD, called.append, True)
    try:
        transport, child = spawn(loop, "/bin/sh", "-c", "exit 5")
        assert run(loop, child.exited) == 5

        async def hear():
            while not called:
                await asyncio.sleep(0)

        run(loop, hear())
    finally:
        if way == "loop.add_signal_handler":
            loop.remove_signal_handler(signal.SIGCHLD)
        signal.signal(signal.SIGCHLD, before)
    run(loop, child.lost)
    transport.close()


def test_a_child_is_spawned_by_the_loops_own_thread(loop, monkeypatch):
    """uvloop#118: so what is slow before the child's program begins holds the loop up, as on stock asyncio."""
    threads = []
    fork_exec = subprocess.Popen._execute_child

    def noted(self, *args):
        threads.append(threading.get_ident())
        return fork_exec(self, *args)

    monkeypatch.setattr(subprocess.Popen, "_execute_child", noted)
    transport, child = spawn(loop, "/bin/true")
    assert run(loop, child.exited) == 0
    assert threads == [threading.get_ident()]
    run(loop, child.lost)
    transport.close()


def test_orphans_are_left_for_the_program(loop, own_watching):
    """uvloop#409: a program that is to reap children that are not the loop's finds them."""
    other = subprocess.Popen(["/bin/sh", "-c", "exit 9"])
    transport, child = spawn(loop, "/bin/sh", "-c", "exit 5")
    assert run(loop, child.exited) == 5
    run(loop, child.lost)
    transport.close()
    assert other.wait() == 9


def test_a_loop_in_another_thread(new_loop):
    found = []

    def work():
        loop = new_loop()

        async def talk():
            process = await asyncio.create_subprocess_exec(CAT, stdin=-1, stdout=-1)
            out, _ = await process.communicate(b"hello")
            found.append((out, process.returncode))

        run(loop, talk())
        turns(loop, 3)
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert found == [(b"hello", 0)]


def refuse(*_):
    raise PermissionError(errno.EPERM, "refused")


@pytest.mark.parametrize("refusal", ["refused", "missing", "no descriptors left"])
def test_without_a_descriptor_a_thread_waits(loop, own_watching, monkeypatch, refusal):
    if refusal == "missing":
        monkeypatch.delattr(os, "pidfd_open")
    elif refusal == "refused":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    else:

        def full(*_):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(os, "pidfd_open", full)
    transport, child = spawn(loop, CAT, stdin=-1)
    assert any(thread.name.startswith("asyncio-waitpid") for thread in threading.enumerate())
    transport.get_pipe_transport(0).close()
    assert run(loop, child.exited) == 0
    run(loop, child.lost)
    transport, child = spawn(loop, CAT, stdin=-1)
    transport.close()
    assert run(loop, child.exited) == -signal.SIGKILL
    run(loop, child.lost)


def test_where_the_kernel_refuses_a_descriptor(loop_name):
    """A filter in front of the kernel, as containers have, answers EPERM."""
    done = python(
        """
        import asyncio, ctypes, errno, os, struct

        # Load the number of the call; 434 is pidfd_open on every architecture: refused. Everything else: allowed.
        steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 434), (0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
        assert libc.prctl(22, 2, ctypes.byref(header), 0, 0) == 0, os.strerror(ctypes.get_errno())
        try:
            os.pidfd_open(os.getpid())
        except PermissionError:
            print("refused")

        async def main():
            process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "cat; exit 3", stdin=-1, stdout=-1)
            print(await process.communicate(b"hello"), process.returncode)

        loop = new_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        loop.close()
        """,
        factory=loop_name,
    )
    assert (done.stdout, done.stderr) == ("refused\n(b'hello', None) 3\n", "")


CANCELLED = """
    import asyncio, sys

    async def child(index):
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1, stderr=-3)
        await process.wait()

    async def main(index):
        tasks = [asyncio.ensure_future(child(number)) for number in range(3)]
        for _ in range(index % 8):
            await asyncio.sleep(0)
        raise ZeroDivisionError

    for index in range(100):
        loop = new_loop()
        asyncio.set_event_loop(loop)
        task = loop.create_task(main(index))
        try:
            loop.run_until_complete(task)
        except ZeroDivisionError:
            pass
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
    print("done")
"""


def test_a_hundred_cancelled_runs_end(loop_name):
    """cpython#125502, cpython#133536: a child whose pipes are not connected yet is cancelled as others are."""
    if loop_name == "asyncio" and sys.version_info < (3, 14):
        pytest.skip("stock asyncio waits for ever for pipes that were never connected, before 3.14")
    done = python(CANCELLED, factory=loop_name)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("steps", range(8))
def test_a_spawn_may_be_cancelled_at_any_step(loop, own_watching, no_leaks, steps):
    """Whatever it has come to by then: no descriptor, no child and no task is left."""
    children = subprocess.Popen
    pids = []

    class Noted(children):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            pids.append(self.pid)

    subprocess.Popen = Noted
    try:
        task = loop.create_task(asyncio.create_subprocess_exec(CAT, stdin=-1, stdout=-1, stderr=-1))
        turns(loop, steps)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            process = run(loop, task)
            process._transport.close()
            run(loop, process.wait())
        turns(loop, 5)
    finally:
        subprocess.Popen = children
    del task
    gc.collect()
    assert all(is_reaped(pid) for pid in pids)


@pytest.mark.parametrize("pipes", [{}, {"stdin": -1}, {"stdin": -1, "stdout": -1, "stderr": -1}], ids=len)
def test_a_spawn_ends_in_the_turn_of_stock_asyncio(loop, pipes):
    def scenario(loop, trace):
        streams = {"stdin": None, "stdout": None, "stderr": None} | pipes
        task = loop.create_task(loop.subprocess_exec(Child, "/bin/sleep", "1000", **streams))
        for number in range(12):
            trace.append(f"turn {number}: {task.done()}")
            turns(loop)
        transport, child = task.result()
        trace.append(f"{child.trace}")
        transport.kill()
        run(loop, child.lost)

    assert "turn 11: True" in same_trace_as_stock(loop, scenario)


@pytest.mark.parametrize("error", [asyncio.CancelledError, ZeroDivisionError])
def test_pipes_that_cannot_be_connected_are_closed(loop, own_watching, no_leaks, error):
    """And the child is killed, and reaped."""
    spawned = []
    popen = subprocess.Popen

    class Noted(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            spawned.append(self)

    async def fail(*_):
        raise error

    subprocess.Popen = Noted
    loop.connect_read_pipe = fail
    try:
        with pytest.raises(error):
            run(loop, asyncio_child())
    finally:
        subprocess.Popen = popen
        del loop.connect_read_pipe
    turns(loop, 3)
    (process,) = spawned
    assert (process.stdout.closed, process.stderr.closed, process.stdin.closed) == (True, True, True)
    assert is_reaped(process.pid)


async def asyncio_child():
    await asyncio.create_subprocess_exec(CAT, stdin=-1, stdout=-1, stderr=-1)


def test_a_grandchild_that_holds_the_pipe(loop):
    """cpython#119710, anyio#1174: what `wait` waits for is the running Python's to say; the exit is told at once."""

    def scenario(loop, trace):
        async def talk():
            script = "exec 3<&0; read line; cat <&3 & exit 3"
            transport, child = await loop.subprocess_exec(Child, "/bin/sh", "-c", script, stderr=None)
            waiting = asyncio.ensure_future(transport._wait())
            await asyncio.sleep(0)
            transport.get_pipe_transport(0).write(b"\n")
            await child.exited
            for _ in range(5):
                await asyncio.sleep(0)
            trace.append(f"{waiting.done()} {child.lost.done()} {child.trace}")
            transport.get_pipe_transport(0).close()
            await child.lost
            trace.append(f"{await waiting} {sorted(child.trace)}")

        run(loop, talk())

    same_trace_as_stock(loop, scenario)


def test_a_loop_may_be_closed_before_its_children_end(new_loop, loop_name, no_leaks):
    loop = new_loop()
    transport, _ = spawn(loop, CAT, stdin=-1)
    pid = transport.get_pid()
    process = transport.get_extra_info("subprocess")
    loop.run_until_complete(asyncio.sleep(0))
    transport.get_pipe_transport(0).close()
    turns(loop, 3)
    loop.close()
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    process.wait(PATIENCE)
    if loop_name == "asyncio":
        # Stock asyncio leaves the descriptor of the child open since 3.12.
        for fd, target in descriptors().items():
            if "pidfd" in target:
                os.close(fd)
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):
            thread.join(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del transport, process, _
        gc.collect()


def test_a_fork_by_foreign_code(loop):
    """uvloop#268: nothing that runs at a fork wants what the forking thread holds."""

    async def fork():
        libc = ctypes.PyDLL(None)
        pid = libc.fork()
        if pid == 0:
            libc._exit(6)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 - it ends at once

    assert run(loop, fork()) == 6


def test_signals_are_sent(loop):
    transport, child = spawn(loop, CAT, stdin=-1)
    transport.send_signal(signal.SIGSTOP)
    transport.send_signal(signal.SIGCONT)
    transport.terminate()
    assert run(loop, child.exited) == -signal.SIGTERM
    run(loop, child.lost)


def test_a_stopped_child_has_not_ended(loop):
    transport, child = spawn(loop, CAT, stdin=-1)
    transport.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, transport.get_pid(), os.WSTOPPED | os.WNOWAIT)
    turns(loop, 3)
    assert not child.exited.done()
    transport.kill()
    assert run(loop, child.exited) == -signal.SIGKILL
    run(loop, child.lost)


def test_debug_mode(debug_loop, caplog):
    with caplog.at_level(logging.DEBUG, "asyncio"):
        transport, child = spawn(debug_loop, "/bin/sh", "-c", "exit 2")
        assert run(debug_loop, child.exited) == 2
        run(debug_loop, child.lost)
    assert any("exited with return code 2" in message for message in caplog.messages)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers are gone")
def test_a_watcher_that_the_program_has_chosen_is_used(own_watching, new_loop, no_leaks):
    """Python 3.11 to 3.13: `asyncio.set_child_watcher`. The default ones are no choice."""

    def children_of(watcher):
        asyncio.set_child_watcher(watcher)
        loop = new_loop()
        asyncio.set_event_loop(loop)
        try:
            transport, child = spawn(loop, CAT, stdin=-1)
            native = len(loop._children._pidfds)
            transport.get_pipe_transport(0).close()
            assert run(loop, child.exited) == 0
            run(loop, child.lost)
        finally:
            asyncio.set_child_watcher(None)
            asyncio.set_event_loop(None)
            turns(loop, 2)
            loop.close()
        return native

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert children_of(None) == 1
        assert children_of(asyncio.ThreadedChildWatcher()) == 1
        assert children_of(asyncio.SafeChildWatcher()) == 0


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="child watchers are gone")
def test_a_watcher_that_is_not_active_is_an_error(loop):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Resting(asyncio.ThreadedChildWatcher):
            def is_active(self):
                return False

        asyncio.set_child_watcher(Resting())
        try:
            with pytest.raises(RuntimeError, match="not activated"):
                spawn(loop, "/bin/true")
        finally:
            asyncio.set_child_watcher(None)


def test_a_policy_without_watchers(own_watching, new_loop):
    if sys.version_info >= (3, 14):
        pytest.skip("policies have no watchers")

    class Policy(asyncio.events.BaseDefaultEventLoopPolicy):
        _loop_factory = staticmethod(asyncio_loop)

    asyncio.set_event_loop_policy(Policy())
    try:
        loop = new_loop()
        transport, child = spawn(loop, "/bin/true")
        assert run(loop, child.exited) == 0
        run(loop, child.lost)
        transport.close()
        loop.close()
    finally:
        asyncio.set_event_loop_policy(None)


def test_the_mode_of_a_childs_pipe_is_its_own(loop):
    """What the loop makes non-blocking is its own end."""
    script = "import os; print(os.get_blocking(0), os.get_blocking(1))"
    assert output(loop, *say(script), stdin=-1) == b"True True\n"
