"""granian, whose connections are its own: its applications run on the loop under test."""

from __future__ import annotations

import http.client
import json
import sys
from contextlib import closing

from .harness import DEADLINE, SERVERS, LoopUnderTest, ServerProcess, on_free_port, stopping, wait_until_listening
from .servers.payload import payload


def test_runs_applications_on_a_registered_loop(loop_under_test: LoopUnderTest) -> None:
    def start(port: int) -> tuple[ServerProcess, int]:
        server = ServerProcess(
            [sys.executable, str(SERVERS / "granian_server.py"), str(port)], env={"FACTORY": loop_under_test.factory}
        )
        try:
            server.wait_for_times("Started worker-", 2)
            server.wait_for_times("lifespan.startup", 2)
        except BaseException:
            server.kill()
            raise
        return server, port

    server, port = on_free_port(start)
    with stopping(server):
        # A worker begins to listen behind its application's start.
        wait_until_listening(server, port)
        for _ in range(10):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
                connection.request("GET", "/which")
                said = json.loads(connection.getresponse().read())
                assert said["loop"].partition(".")[0] == loop_under_test.package
                connection.request("POST", "/echo", body=payload(1 << 20))
                assert connection.getresponse().read() == payload(1 << 20)
        server.stop()
        server.wait_for_times("lifespan.shutdown", 2)
