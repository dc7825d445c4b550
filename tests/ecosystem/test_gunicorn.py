"""gunicorn with uvicorn's workers, on the loop under test."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from contextlib import closing

import pytest

from .harness import DEADLINE, LoopUnderTest, ServerProcess, stopping


def ask(port: int) -> str:
    """Which package the loop comes from that answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.request("GET", "/which", headers={"Connection": "close"})
        return json.loads(connection.getresponse().read())["loop"].partition(".")[0]


@pytest.fixture
def start(loop_under_test: LoopUnderTest) -> ServerProcess:
    """gunicorn with two workers, on a port of its own choosing."""
    return ServerProcess(
        [
            *(sys.executable, "-m", "gunicorn", "asgi_app:app", "--worker-class", "workers.Worker"),
            *("--workers", "2", "--bind", "127.0.0.1:0", "--no-control-socket"),
        ],
        env={"LOOP": "asyncio" if loop_under_test.name == "asyncio" else loop_under_test.factory},
    )


def test_serves_reloads_and_stops(start: ServerProcess, loop_under_test: LoopUnderTest) -> None:
    with stopping(start) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        workers = [int(match[1]) for match in server.wait_for_times(r"Booting worker with pid: (\d+)", 2)]
        server.wait_for_times("lifespan.startup", 2)
        for _ in range(10):
            assert ask(port) == loop_under_test.package

        server.send_signal(signal.SIGHUP)
        # Each old worker finishes as if it were the last, and each new one starts on the same socket.
        server.wait_for_times("lifespan.startup", 4)
        server.wait_for_times("lifespan.shutdown", 2)
        for _ in range(10):
            assert ask(port) == loop_under_test.package
        booted = [int(match[1]) for match in server.wait_for_times(r"Booting worker with pid: (\d+)", 4)]
        assert not set(booted[2:]) & set(workers)

        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        server.wait_for_times("lifespan.shutdown", 4)
        assert "Traceback" not in server.output
