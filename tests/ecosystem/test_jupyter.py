"""Notebooks: ipykernel on the loop under test, and nest_asyncio, which runs a loop inside of itself."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Certificates
from .harness import DEADLINE, PROGRAMS, LoopUnderTest, run_program

ALL = {
    "plain": True,
    "tls": True,
    "datagram": "margatad",
    "watched": "watched",
    "process": "through cat",
    "returncode": 0,
    "order": [1, 2, 3, 4],
    "thread": 1024,
}

# nest_asyncio itself fails there, on asyncio's own loop.
nestable = pytest.mark.skipif(sys.version_info >= (3, 14), reason="nest_asyncio does not know this Python")


@nestable
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_loop_runs_inside_of_itself(loop_under_test: LoopUnderTest, certificates: Certificates, when: str) -> None:
    """nest_asyncio puts turns of its own in the place of the loop's, which look at asyncio's private queues."""
    files = [str(path) for path in (certificates.chain, certificates.key, certificates.authority)]
    said = run_program("nested_program", loop_under_test, *files, when)
    assert said["inside"].pop("left") >= 2
    assert said["outside"].pop("left") >= 1
    assert said == {
        "loop": loop_under_test.package,
        "inside": ALL,
        "outside": ALL,
        "deep": 5,
        "outer goes on inside": True,
        "due": "due",
    }


class Notebook:
    """A kernel in a process of its own, and its client."""

    def __init__(self, loop: LoopUnderTest, directory: Path) -> None:
        from jupyter_client import KernelManager
        from jupyter_client.kernelspec import KernelSpec

        argv = [sys.executable, str(PROGRAMS / "kernel_program.py"), loop.factory, "-f", "{connection_file}"]
        # Sockets of files: ports could be taken by somebody else meanwhile.
        self._manager = KernelManager(transport="ipc", connection_file=str(directory / "kernel.json"))
        self._directory = directory
        self._manager._kernel_spec = KernelSpec(argv=argv, display_name="under test", language="python")
        self._manager.start_kernel(
            env=os.environ | {"IPYTHONDIR": str(directory), "JUPYTER_RUNTIME_DIR": str(directory)}
        )
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=DEADLINE)

    def run(self, cell: str) -> Any:
        """Run a cell, and give what its last expression is, as text; of an exception its name."""
        reply = self._reply(self._execute(cell))
        if reply["status"] == "error":
            return reply["ename"]
        return reply["user_expressions"]["value"]["data"]["text/plain"]

    def interrupt(self, cell: str) -> str:
        """Run a cell that calls `begun`, interrupt it then, and give the name of the exception."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(DEADLINE)
            listener.bind(str(self._directory / "begun"))
            listener.listen()
            self.run(
                "import socket\n"
                "def begun():\n"
                "    with socket.socket(socket.AF_UNIX) as told:\n"
                f"        told.connect({listener.getsockname()!r})\n"
            )
            request = self._execute(cell)
            listener.accept()[0].close()
        os.unlink(self._directory / "begun")
        self._manager.interrupt_kernel()
        return self._reply(request).get("ename", "nothing")

    def _execute(self, cell: str) -> str:
        # The value is asked for with the cell: what the kernel publishes it holds back when the machine is busy, on any
        # loop. And a kernel drops, unless told not to, what reaches it within a moment after a cell that failed.
        return self._client.execute(cell, user_expressions={"value": "_"}, stop_on_error=False)

    def _reply(self, request: str) -> dict[str, Any]:
        while True:
            reply = self._client.get_shell_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]

    def close(self) -> None:
        """Ask it to end."""
        self._client.shutdown()
        self._manager.finish_shutdown(waittime=DEADLINE)
        assert not self._manager.is_alive()
        self._client.stop_channels()
        self._manager.cleanup_resources()


@pytest.fixture
def notebook(loop_under_test: LoopUnderTest, short_tmp: str) -> Iterator[Notebook]:
    """A kernel on the loop."""
    notebook = Notebook(loop_under_test, Path(short_tmp))
    try:
        yield notebook
    finally:
        notebook.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_kernel_runs_cells_on_the_loop(notebook: Notebook, loop_under_test: LoopUnderTest) -> None:
    assert notebook.run(
        "import asyncio; loop = asyncio.get_running_loop(); type(loop).__module__.split('.')[0]"
    ) == repr(loop_under_test.package)
    notebook.run(
        "async def serve(reader, writer):\n"
        "    writer.write(await reader.read())\n"
        "    writer.close()\n"
        "server = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
        "async def ask(data):\n"
        "    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    writer.write(data)\n"
        "    writer.write_eof()\n"
        "    answer = await reader.read()\n"
        "    writer.close()\n"
        "    await writer.wait_closed()\n"
        "    return answer\n"
    )
    assert notebook.run("await ask(b'hello')") == "b'hello'"
    # A task that goes on between cells.
    notebook.run(
        "ticks = asyncio.Queue()\nasync def tick():\n    while True:\n        await asyncio.sleep(.001); ticks.put_nowait(0)\n"
    )
    notebook.run("ticking = asyncio.create_task(tick())")
    assert notebook.run("[await ticks.get() for _ in range(3)]") == "[0, 0, 0]"
    assert notebook.run("await asyncio.sleep(0, loop is asyncio.get_running_loop())") == "True"
    assert notebook.run("await asyncio.wait_for(asyncio.sleep(1000), .001)") == "TimeoutError"
    assert notebook.run("asyncio.run(asyncio.sleep(0))") == "RuntimeError"
    assert notebook.interrupt("begun()\nawait asyncio.sleep(1000)") in (
        "CancelledError",
        "KeyboardInterrupt",
    )
    assert notebook.interrupt("begun()\nwhile True: pass") == "KeyboardInterrupt"
    assert notebook.run("await ask(b'again')") == "b'again'"
    if sys.version_info < (3, 14):
        notebook.run("import nest_asyncio; nest_asyncio.apply()")
        assert notebook.run("asyncio.run(ask(b'nested'))") == "b'nested'"
        assert notebook.run("await ask(b'and not')") == "b'and not'"
    notebook.run("ticking.cancel(); server.close()")
