"""Whose descriptor it is: nothing is closed twice, nothing is closed that is somebody else's, nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import socket
import sys
import warnings

import pytest
from harness import Recorder, attach, close, descriptors, python, run, tcp_pair, turns


class Probing(io.FileIO):
    """A pipe's end that notes whether it was still open when it was closed."""

    def __init__(self, fd, mode, probes):
        super().__init__(fd, mode)
        self.probes = probes

    def close(self):
        if not self.closed:
            try:
                os.fstat(self.fileno())
                self.probes.append("open")
            except OSError:
                self.probes.append("closed by somebody else")
        super().close()


@pytest.mark.parametrize("end", ["read", "write"])
def test_a_pipe_is_closed_once(loop, no_leaks, end):
    """uvloop#763, skypilot#10681: by the file object that was passed in, and not under it."""
    for _ in range(20):
        read, write = os.pipe()
        probes = []
        if end == "read":
            pipe, other = Probing(read, "rb", probes), write
            connecting = loop.connect_read_pipe(asyncio.Protocol, pipe)
        else:
            pipe, other = Probing(write, "wb", probes), read
            connecting = loop.connect_write_pipe(asyncio.BaseProtocol, pipe)
        transport, _ = run(loop, connecting)
        transport.close()
        turns(loop, 3)
        canary = os.open("/dev/null", os.O_RDONLY)
        pipe.close()
        del transport, pipe
        gc.collect()
        os.close(canary)  # fails where somebody closed it meanwhile
        os.close(other)
        assert probes == ["open"]


def test_standard_output_can_be_connected_twice(loop, no_leaks):
    """uvloop#262"""
    read, write = os.pipe()
    first, _ = run(loop, loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(write), "wb", 0)))
    second, _ = run(loop, loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(os.dup(write), "wb", 0)))
    first.write(b"one")
    second.write(b"two")
    assert os.read(read, 10) == b"onetwo"
    first.close()
    second.close()
    turns(loop, 3)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_a_regular_file_is_no_pipe(loop, tmp_path, method):
    with (tmp_path / "file").open("w+b") as file, pytest.raises(ValueError, match=r"^Pipe transport is (only )?for"):
        run(loop, getattr(loop, method)(asyncio.Protocol, file))


@pytest.mark.parametrize("api", ["connect_read_pipe", "connect_write_pipe", "create_datagram_endpoint"])
@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
def test_a_factory_that_raises_leaks_nothing(loop, no_leaks, api, error):
    """cpython#153133, cpython#155934"""

    def factory():
        raise error("text")

    read, write = os.pipe()
    reader, writer = os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)
    before = descriptors()
    with warnings.catch_warnings():
        # Stock asyncio leaves closing its datagram socket to the collector on some versions.
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(error, match="text"):
            if api == "create_datagram_endpoint":
                run(loop, loop.create_datagram_endpoint(factory, ("127.0.0.1", 0)))
            else:
                run(loop, getattr(loop, api)(factory, reader if "read" in api else writer))
        turns(loop, 2)
        gc.collect()
    assert descriptors() == before
    reader.close()
    writer.close()


def test_a_program_that_cannot_be_started_leaks_nothing(loop, no_leaks):
    """uvloop#185, uvloop#466, uvloop#481"""

    async def spawn():
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/nonexistent/program", stdin=-1, stdout=-1, stderr=-1)

    run(loop, spawn())
    gc.collect()
    before = descriptors()

    async def spawn_many():
        for _ in range(200):
            await spawn()

    run(loop, spawn_many())
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize("steps", range(6))
def test_create_datagram_endpoint_may_be_cancelled_at_any_step(loop, no_leaks, steps):
    """uvloop#740"""
    before = descriptors()
    task = loop.create_task(loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0)))
    turns(loop, steps)
    task.cancel()
    turns(loop)
    canary = os.open("/dev/null", os.O_RDONLY)
    with contextlib.suppress(asyncio.CancelledError):
        close(loop, run(loop, task)[0])
    turns(loop, 3)
    gc.collect()
    os.close(canary)
    assert descriptors() == before


def test_a_reader_of_a_fifo_closes_at_its_end(loop, no_leaks, tmp_path):
    """uvloop#80: the descriptor goes with the end of the stream, without a call of close()."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    before = descriptors()
    for _ in range(5):
        read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        write = os.open(path, os.O_WRONLY)
        _, protocol = run(loop, loop.connect_read_pipe(Recorder, os.fdopen(read, "rb", 0)))
        os.write(write, b"x")
        os.close(write)
        run(loop, protocol.lost)
        assert protocol.received == b"x"
        assert descriptors() == before


def test_a_transport_whose_peer_is_gone_closes_its_socket(loop, no_leaks):
    """uvloop#80"""
    before = descriptors()
    for _ in range(5):
        near, far = tcp_pair()
        _, protocol = attach(loop, near)
        far.close()
        run(loop, protocol.lost)
        turns(loop, 2)
        assert descriptors() == before


def test_the_number_of_a_closed_transport_is_free_in_connection_lost_and_after(loop, no_leaks):
    """A second close of the number would hit the descriptor opened meanwhile."""
    near, far = tcp_pair()
    transport, protocol = attach(loop, near)
    close(loop, transport)
    run(loop, protocol.lost)
    canaries = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    close(loop, transport)
    near.close()
    del transport, protocol
    gc.collect()
    turns(loop, 2)
    for canary in canaries:
        os.close(canary)
    far.close()


def test_descriptors_of_the_loop_are_not_inherited(new_loop):
    """A child must not keep the loop's own descriptors open."""
    before = descriptors()
    loop = new_loop()
    turns(loop)
    own = set(descriptors()) - set(before)
    assert own
    assert [fd for fd in own if os.get_inheritable(fd)] == []
    loop.close()


def test_closing_the_loop_closes_its_descriptors_at_once(new_loop):
    before = descriptors()
    loop = new_loop()
    turns(loop)
    assert descriptors() != before
    loop.close()
    assert descriptors() == before


def test_a_loop_that_is_dropped_unclosed_warns_and_closes_its_descriptors(new_loop):
    before = descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = new_loop()
        turns(loop)
        del loop
        gc.collect()
    assert any(str(warning.message).startswith("unclosed event loop <") for warning in caught)
    assert descriptors() == before


def test_opening_and_closing_loops_leaks_nothing(new_loop):
    before = descriptors()
    for _ in range(200):
        loop = new_loop()
        turns(loop)
        loop.close()
    assert descriptors() == before


def test_a_file_closed_under_a_server_is_noticed_and_the_loop_goes_on(loop, no_leaks, unhandled):
    server = run(loop, loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    server.close()
    assert run(loop, asyncio.sleep(0, "works")) == "works"
    run(loop, server.wait_closed())


def test_no_descriptor_is_left_to_a_program_that_is_executed(loop_name):
    process = python(
        """
        import os, subprocess, sys
        loop = new_loop()
        loop.call_soon(loop.stop)
        loop.run_forever()
        print(subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout.split())
        loop.close()
        """,
        factory=loop_name,
    )
    assert (process.returncode, process.stdout) == (0, "['0', '1', '2', '3']\n"), sys.version


def test_sockets_passed_in_stay_the_callers_where_asyncio_says_so(loop, unix):
    near, far = unix

    async def use():
        await loop.sock_sendall(near, b"x")

    run(loop, use())
    assert far.recv(1) == b"x"
    assert near.fileno() >= 0
    assert socket.SOCK_STREAM == near.type
