"""Notebooks: ipykernel on the loop under test, and nest_asyncio, which runs a loop inside of itself."""

from __future__ import annotations

import os
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
        self._manager._kernel_spec = KernelSpec(argv=argv, display_name="under test", language="python")
        self._manager.start_kernel(
            env=os.environ | {"IPYTHONDIR": str(directory), "JUPYTER_RUNTIME_DIR": str(directory)}
        )
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=DEADLINE)

    def run(self, cell: str) -> Any:
        """Run a cell, and give what its last expression is, as text; of an exception its name."""
        values: list[str] = []

        def on_output(message: dict[str, Any]) -> None:
            if message["msg_type"] == "execute_result":
                values.append(message["content"]["data"]["text/plain"])

        reply = self._client.execute_interactive(cell, timeout=DEADLINE, output_hook=on_output)["content"]
        if reply["status"] == "error":
            return reply["ename"]
        return values[0] if values else None

    def interrupt(self, cell: str, marker: str) -> str:
        """Run a cell, interrupt it when it has printed the marker, and give the name of the exception."""
        request = self._client.execute(cell)
        while True:
            message = self._client.get_iopub_msg(timeout=DEADLINE)
            if message["msg_type"] == "stream" and marker in message["content"]["text"]:
                break
        self._manager.interrupt_kernel()
        while True:
            reply = self._client.get_shell_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"].get("ename", "nothing")

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
    assert notebook.interrupt("print('begun')\nawait asyncio.sleep(1000)", "begun") in (
        "CancelledError",
        "KeyboardInterrupt",
    )
    assert notebook.interrupt("print('begun')\nwhile True: pass", "begun") == "KeyboardInterrupt"
    assert notebook.run("await ask(b'again')") == "b'again'"
    if sys.version_info < (3, 14):
        notebook.run("import nest_asyncio; nest_asyncio.apply()")
        assert notebook.run("asyncio.run(ask(b'nested'))") == "b'nested'"
        assert notebook.run("await ask(b'and not')") == "b'and not'"
    notebook.run("ticking.cancel(); server.close()")
