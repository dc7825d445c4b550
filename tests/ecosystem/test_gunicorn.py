"""gunicorn with uvicorn's workers, on the loop under test."""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from contextlib import closing

from .harness import DEADLINE, LoopUnderTest, ServerProcess, stopping


def ask(port: int) -> str:
    """Which package the loop comes from that answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        connection.request("GET", "/which", headers={"Connection": "close"})
        return json.loads(connection.getresponse().read())["loop"].partition(".")[0]


def gunicorn(loop: LoopUnderTest, app: str, *options: str) -> ServerProcess:
    """gunicorn with two workers, on a port of its own choosing."""
    return ServerProcess(
        [
            *(sys.executable, "-m", "gunicorn", app, "--worker-class", "workers.Worker"),
            *("--workers", "2", "--bind", "127.0.0.1:0", "--no-control-socket", *options),
        ],
        env={"LOOP": "asyncio" if loop.name == "asyncio" else loop.factory, "FACTORY": loop.factory},
    )


def test_serves_reloads_and_stops(loop_under_test: LoopUnderTest) -> None:
    with stopping(gunicorn(loop_under_test, "asgi_app:app")) as server:
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


def test_forks_workers_from_a_master_that_has_run_a_loop(loop_under_test: LoopUnderTest) -> None:
    """``--preload``: the application is imported before the forks, and has used a loop by then, which is open still."""
    with stopping(gunicorn(loop_under_test, "preloaded_app:app", "--preload")) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        assert server.wait_for("preloaded on ([a-z]+)")[1] == loop_under_test.package
        workers = [int(match[1]) for match in server.wait_for_times(r"Booting worker with pid: (\d+)", 2)]
        server.wait_for_times("lifespan.startup", 2)
        for _ in range(10):
            assert ask(port) == loop_under_test.package

        # A worker that dies is replaced by one that is forked from the same master, which goes on unharmed.
        os.kill(workers[0], signal.SIGKILL)
        server.wait_for_times("lifespan.startup", 3)
        for _ in range(10):
            assert ask(port) == loop_under_test.package

        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        server.wait_for_times("lifespan.shutdown", 2)
        assert server.output.count("preloaded on") == 1
        # The master's own loop works to its end.
        server.wait_for("the master's loop still runs")
        assert "Traceback" not in server.output
