"""Where the kernel refuses io_uring: one clear error for who asked for it, and silence for who asked for either."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from refusing import refuse

from harness import PATIENCE, refusal

#: The errors by which a kernel refuses a ring, and what the loop's own error says of each. The first two are a filter's.
REASONS = {"EPERM": "seccomp", "ENOSYS": "the kernel has no io_uring", "ENOMEM": "RLIMIT_MEMLOCK"}

#: What every way of asking is tried with.
PRELUDE = """
import asyncio, errno, gc, logging, os, sys, warnings
import hotloop
said = []
class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.basicConfig(level=logging.INFO, handlers=[Keep()])
"""


def refused(error: str, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process to which io_uring is refused with an error. Warnings are errors."""
    refusing = [sys.executable, str(Path(__file__).with_name("refusing.py")), error]
    try:
        ended = subprocess.run(
            [*refusing, sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | environment,
            cwd=Path(__file__).parent,
        )
    except subprocess.TimeoutExpired as expired:
        raise AssertionError(f"it hangs: {expired.stderr}") from expired
    if "prctl" in ended.stderr or "refusing.py" in ended.stderr:
        pytest.skip(f"no seccomp filters here: {ended.stderr}")
    return ended


def succeeds(error: str, script: str, **environment: str) -> list[str]:
    """The lines that a script prints, which runs to its end and complains of nothing."""
    ended = refused(error, script, **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.mark.parametrize("error", REASONS)
def test_the_constructor_says_why(error):
    """uvloop#752, rsloop#75"""
    number, text, kind, *rest = succeeds(
        error,
        """
        before = sorted(os.listdir("/proc/self/fd"))
        for ask in (hotloop.ProactorEventLoop, lambda: hotloop.new_event_loop("proactor")):
            try:
                ask()
            except OSError as refused:
                error = refused
        print(errno.errorcode[error.errno])
        print(error.strerror)
        print(type(error).__name__)
        del error
        gc.collect()
        print(sorted(os.listdir("/proc/self/fd")) == before, said)
        """,
    )
    assert (number, rest) == (error, ["True []"])
    assert kind == ("PermissionError" if error == "EPERM" else "OSError")
    assert "io_uring" in text
    assert REASONS[error] in text


@pytest.mark.parametrize("error", REASONS)
def test_auto_is_silently_the_selector(error):
    """uvloop#752: once for all loops and not a word, however often it is asked for."""
    lines = succeeds(
        error,
        """
        before = sorted(os.listdir("/proc/self/fd"))
        for _ in range(100):
            with asyncio.Runner(loop_factory=lambda: hotloop.new_event_loop("auto")) as runner:
                loop = runner.get_loop()
                found = type(loop).__name__, loop.driver, runner.run(asyncio.sleep(0, "ran"))
        del loop
        gc.collect()
        print(*found, sorted(os.listdir("/proc/self/fd")) == before, said)
        """,
    )
    assert lines == ["SelectorEventLoop epoll ran True []"]


def test_the_environment_asks_for_the_error_too():
    ended = refused("EPERM", "hotloop.run(asyncio.sleep(0))", HOTLOOP_LOOP="proactor")
    assert ended.returncode == 1
    assert "PermissionError: [Errno 1] io_uring" in ended.stderr


def test_the_environment_asks_for_either_in_silence():
    script = "print(hotloop.run(asyncio.sleep(0, asyncio)) is asyncio, said)"
    assert succeeds("EPERM", script, HOTLOOP_LOOP="auto") == ["True []"]


@pytest.mark.skipif(refusal() is not None, reason="there is no proactor here")
def test_a_filter_that_comes_later_is_heeded(no_leaks):
    """A sandbox closes once the program has begun; what auto has found out before does not bind it."""
    child = os.fork()
    if child == 0:
        import hotloop

        try:
            before = hotloop.new_event_loop("auto")
            refuse(1)
            after = hotloop.new_event_loop("auto")
            before.call_soon(before.stop)
            before.run_forever()
            os._exit(10 * (before.driver == "io_uring") + (after.driver == "epoll"))
        except BaseException:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11


#: A bit of everything, as a program on a refused machine would do it.
PROGRAM = """
import ssl, socket
from pathlib import Path

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def exchange(**tls):
    reader, writer = await asyncio.open_connection("127.0.0.1", tls.pop("port"), **tls)
    sent = os.urandom(300_000)
    writer.write(sent)
    received = await reader.readexactly(len(sent))
    writer.close()
    await writer.wait_closed()
    return sent == received

class Datagrams(asyncio.DatagramProtocol):
    def __init__(self):
        self.came = asyncio.get_running_loop().create_future()
    def datagram_received(self, data, addr):
        self.came.set_result(data)

async def main():
    loop = asyncio.get_running_loop()
    print(loop.driver)
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print("streams", await asyncio.gather(*[exchange(port=server.sockets[0].getsockname()[1]) for _ in range(10)]))
    serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate(serving, asking)
    secure = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=serving)
    port = secure.sockets[0].getsockname()[1]
    print("TLS", await asyncio.gather(*[exchange(port=port, ssl=asking, server_hostname="localhost") for _ in range(3)]))
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    out, _ = await child.communicate(b"x" * 100_000)
    print("child", len(out), child.returncode)
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    transport.sendto(b"datagram", transport.get_extra_info("sockname"))
    print("datagram", await protocol.came)
    transport.close()
    near, far = socket.socketpair()
    near.setblocking(False), far.setblocking(False)
    await loop.sock_sendall(near, b"sock")
    print("sock", await loop.sock_recv(far, 100))
    near.close(), far.close()
    print("thread", await asyncio.to_thread(lambda: 1))
    for each in (server, secure):
        each.close()
        await each.wait_closed()

def certificate(serving, asking):
    import trustme
    authority = trustme.CA()
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(asking)

warnings.simplefilter("ignore")  # of what is imported for certificates
hotloop.run(main())
print(said)
"""


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_program_runs_all_the_same(error):
    lines = succeeds(error, PROGRAM, HOTLOOP_LOOP="auto")
    assert lines == [
        "epoll",
        f"streams {[True] * 10}",
        f"TLS {[True] * 3}",
        "child 100000 0",
        "datagram b'datagram'",
        "sock b'sock'",
        "thread 1",
        "[]",
    ]
