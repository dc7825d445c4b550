"""pytest-asyncio with the loop's factory, in a run of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from .harness import DEADLINE, LoopUnderTest

CONFTEST = """
    import {module}

    def pytest_asyncio_loop_factories(config, item):
        return {{"{module}": {factory}}}
"""

TESTS = """
    import asyncio

    import pytest
    import pytest_asyncio

    def package():
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    @pytest_asyncio.fixture
    async def echo():
        async def serve(reader, writer):
            writer.write(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def shared():
        yield asyncio.get_running_loop()

    @pytest.mark.asyncio
    async def test_runs_on_the_loop():
        assert package() == "{package}"
        await asyncio.sleep(0)

    @pytest.mark.asyncio
    async def test_uses_a_fixture_that_serves(echo):
        reader, writer = await asyncio.open_connection(*echo)
        writer.write(b"hello" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"hello" * 100_000
        writer.close()
        await writer.wait_closed()

    @pytest.mark.asyncio(loop_scope="module")
    class TestOneLoop:
        loop = None

        async def test_first(self, shared):
            assert package() == "{package}"
            assert asyncio.get_running_loop() is shared
            TestOneLoop.loop = shared

        async def test_second(self, shared):
            assert asyncio.get_running_loop() is TestOneLoop.loop

    @pytest.mark.asyncio
    @pytest.mark.xfail(strict=True, raises=ZeroDivisionError)
    async def test_fails():
        await asyncio.sleep(0)
        1 / 0

    @pytest.mark.asyncio
    async def test_leaves_a_task_behind():
        asyncio.create_task(asyncio.sleep(3600), name="left behind")
        await asyncio.sleep(0)

    def test_without_a_loop():
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
"""


def test_runs_tests_on_the_loop(loop_under_test: LoopUnderTest, tmp_path: Path) -> None:
    module, _, attribute = loop_under_test.factory.partition(":")
    names = {"module": module, "factory": f"{module}.{attribute}", "package": loop_under_test.package}
    (tmp_path / "conftest.py").write_text(dedent(CONFTEST).format(**names))
    (tmp_path / "test_generated.py").write_text(dedent(TESTS).format(**names))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed, 1 xfailed" in run.stdout
