"""What the proactor promises of small writes: all of a turn go out with the wait at its end, in one system call.

On stock asyncio, and on the selector loop, the first write of a turn is in the kernel when `write` returns.
"""

from __future__ import annotations

import collections
import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import textwrap

import pytest
from test_faults import tracing_is_refused

from harness import FACTORIES, PATIENCE, attach, close, receive_exactly, refusal, run, turns

pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"{refusal()}")


@pytest.fixture
def loop_name():
    """Only the proactor does so."""
    return "proactor"


@pytest.fixture
def connection(loop, unix):
    """A transport and its far end, which does not block."""
    near, far = unix
    transport, _ = attach(loop, near)
    far.setblocking(False)
    yield transport, far
    if not loop.is_closed():
        close(loop, transport)


def there(far: socket.socket) -> bytes:
    """What a peer can read at this moment."""
    with contextlib.suppress(BlockingIOError):
        return far.recv(1 << 20)
    return b""


def within_a_turn(loop, *steps):
    """Call each step in the same turn; what they answer, and then what a step of the next turn, the last, does."""
    answers = []
    for step in steps[:-1]:
        loop.call_soon(lambda step=step: answers.append(step()))
    loop.call_soon(lambda: loop.call_soon(lambda: answers.append(steps[-1]())))
    turns(loop, 2)
    return answers


def test_small_writes_leave_when_the_turn_ends(loop, connection):
    transport, far = connection
    answers = within_a_turn(
        loop,
        lambda: transport.write(b"head "),
        lambda: there(far),
        lambda: transport.writelines([b"and ", b"body"]),
        lambda: there(far),
        lambda: there(far),
    )
    assert answers == [None, b"", None, b"", b"head and body"]


#: What has earlier writes of its turn sent first, and what is to be read then.
SETTLING = {
    "a look at the queue": (lambda transport: transport.get_write_buffer_size(), b"small"),
    "a large write": (lambda transport: transport.write(bytes(20_000)), b"small" + bytes(20_000)),
    "the end of writing": (lambda transport: transport.write_eof(), b"small"),
    "a close": (lambda transport: transport.close(), b"small"),
    "an abort": (lambda transport: transport.abort(), b"small"),
}


@pytest.mark.parametrize("settling", SETTLING)
def test_what_comes_behind_a_small_write_has_it_sent(loop, connection, settling):
    transport, far = connection
    act, expected = SETTLING[settling]
    answers = within_a_turn(loop, lambda: transport.write(b"small"), lambda: act(transport), lambda: there(far))
    assert answers[-1] == expected
    if settling == "a look at the queue":
        assert answers[1] == 0


def test_what_settles_is_there_within_the_turn(loop, connection):
    transport, far = connection
    answers = within_a_turn(
        loop, lambda: transport.write(b"small"), transport.get_write_buffer_size, lambda: there(far), lambda: there(far)
    )
    assert answers == [None, 0, b"small", b""]


@pytest.mark.parametrize("ending", ["stop", "exit", "close"])
def test_the_end_of_a_run_sends_what_is_left(loop, connection, ending):
    transport, far = connection

    def end():
        transport.write(b"last words")
        loop.stop()
        if ending == "exit":
            raise SystemExit

    loop.call_soon(end)
    with contextlib.suppress(SystemExit):
        loop.run_forever()
    if ending == "close":
        transport.abort()
    assert there(far) == b"last words"


def test_outside_of_a_run_a_write_is_sent_at_once(loop, connection):
    transport, far = connection
    transport.write(b"now")
    assert there(far) == b"now"


def test_what_the_peer_has_no_room_for_comes_back_and_is_told(loop, unix):
    """Flow control begins where the kernel takes no more, and the bytes arrive in order when it does again."""
    near, far = unix
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport, protocol = attach(loop, near)
    transport.set_write_buffer_limits(high=30_000)
    written = bytearray()

    def write():
        if "pause_writing" not in protocol.trace:
            piece = len(written).to_bytes(4, "big") * 250
            written.extend(piece)
            transport.write(piece)
            loop.call_soon(write)

    loop.call_soon(write)

    async def paused():
        await protocol.wait_until(lambda: "pause_writing" in protocol.trace)

    run(loop, paused())
    assert transport.get_write_buffer_size() > 30_000
    received = bytearray()
    far.setblocking(False)
    while len(received) < len(written):
        received += there(far)
        turns(loop)
    assert received == written
    assert protocol.trace[-1] == "resume_writing"
    close(loop, transport)


def test_a_broken_connection_is_told_in_the_next_turn(loop, unix):
    near, far = unix
    transport, protocol = attach(loop, near)
    transport.pause_reading()
    far.close()
    loop.call_soon(transport.write, b"into the void")
    error = run(loop, protocol.lost)
    assert isinstance(error, BrokenPipeError)


SERVER = """
    import asyncio, ctypes
    ctypes.CDLL(None).prctl(0x59616D61, -1)  # PR_SET_PTRACER: anybody

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data[:500])
            self.transport.write(data[500:])

    async def main():
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    new_loop().run_until_complete(main())
"""


def test_a_turn_of_an_echo_server_hands_in_once(no_leaks):
    refused = tracing_is_refused()
    if refused:
        pytest.skip(refused)
    source = FACTORIES["proactor"] + textwrap.dedent(SERVER)
    exchanges = 200
    with tempfile.NamedTemporaryFile("r") as trace:
        program = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
        with program, socket.create_connection(("127.0.0.1", int(program.stdout.readline())), PATIENCE) as client:

            def exchange():
                client.sendall(b"x" * 1000)
                assert receive_exactly(client, 1000) == b"x" * 1000

            for _ in range(10):
                exchange()
            command = ["strace", "-o", trace.name, "-p", str(program.pid)]
            tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert "attached" in tracer.stderr.readline()
            for _ in range(exchanges):
                exchange()
            tracer.terminate()
            tracer.communicate(timeout=PATIENCE)
            program.kill()
        lines = [line for line in trace.read().splitlines() if not line.startswith(("---", "+++"))]
    calls = collections.Counter(re.split(r"\W", line)[0] for line in lines)
    assert set(calls) == {"io_uring_enter"}, calls
    # One each, and those that attaching and detaching break off.
    handing_in = [line for line in lines if not re.match(r"io_uring_enter\(\d+, 0,", line)]
    assert exchanges <= len(handing_in) <= exchanges + 5
    # A wait that looks before it sleeps is another.
    assert calls["io_uring_enter"] <= 2 * exchanges + 5
