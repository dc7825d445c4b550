"""The benchmarks measure what they say: servers echo, rows run, ratios are right."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
from collections.abc import Callable

import pytest

from benchmarks import connections, datagrams, files, lines, loops, network, pipes, process, scheduling
from benchmarks.ratios import Ratio, table
from benchmarks.rounds import interleave
from benchmarks.servers import KINDS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "udp" and "download" not in kind])
@pytest.mark.parametrize("loop", ["asyncio", "hotloop"])
def test_an_echo_server_of_each_kind_echoes(loop: str, kind: str) -> None:
    message = bytes(range(256)) * 100
    with (
        process.server(process.python("-m", "benchmarks.servers", "--loop", loop, "--kind", kind)) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=60) as sock,
        trusting(sock) if kind.startswith("tls_") else sock as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(message)
        assert answer.read(len(message)) == message


def trusting(sock: socket.socket) -> ssl.SSLSocket:
    """TLS with whoever is there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


@pytest.mark.parametrize("loop", ["asyncio", "hotloop"])
def test_a_datagram_server_echoes(loop: str) -> None:
    command = process.python("-m", "benchmarks.servers", "--loop", loop, "--kind", "udp")
    with process.server(command) as (_, port), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.sendto(b"datagram", ("127.0.0.1", port))
        assert sock.recvfrom(100) == (b"datagram", ("127.0.0.1", port))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "download" in kind])
@pytest.mark.parametrize("loop", ["asyncio", "hotloop"])
def test_a_download_is_as_long_as_asked_for_again_and_again(loop: str, kind: str) -> None:
    command = process.python("-m", "benchmarks.servers", "--loop", loop, "--kind", kind)
    with (
        process.server(command) as (_, port),
        socket.create_connection(("127.0.0.1", port), timeout=60) as sock,
        trusting(sock) if kind.startswith("tls_") else sock as connection,
        connection.makefile("rb") as answer,
    ):
        for size in (3_000_001, 100, 200_000):
            connection.sendall(size.to_bytes(8, "little"))
            assert answer.read(size) == (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("loop", ["asyncio", "hotloop"])
def test_scheduling_rows_run_on_a_loop(loop: str) -> None:
    made = loops.factory(loop)()
    try:
        assert scheduling.call_later_cancel(made) == 100_000
        assert scheduling.call_soon_from_thread(made) == 100_000
        assert scheduling.getaddrinfo_literal(made) == 2_000
        assert lines.stream_lines(made, 10_000) == 10_000
        assert pipes.pipe_throughput(made) == 4_000
        assert pipes.pipe_ping_pong(made) == 20_000
        assert pipes.spawn(made) == 100
        assert datagrams.udp_many(made) == 32_000
        assert files.fs_small_files(made, 2) == 2_000
        assert files.fs_small_files_threads(made, 2) == 2_000
        made.run_until_complete(made.shutdown_default_executor())
    finally:
        made.close()


@pytest.mark.parametrize("loop", ["asyncio", "hotloop"])
@pytest.mark.parametrize("row", connections.ROWS)
def test_connection_rows_run_on_a_loop(loop: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTS", 20)
    monkeypatch.setattr(connections, "EXCHANGES", 20)
    monkeypatch.setattr(connections, "IDLE", 60)
    monkeypatch.setattr(connections, "IDLE_BEFORE", 10)
    made = loops.factory(loop)()
    try:
        assert connections.ROWS[row].run(made) >= 0
    finally:
        made.run_until_complete(asyncio.sleep(0.01))
        made.close()
        gc.collect()


def test_a_server_that_does_not_start_is_an_error() -> None:
    dies = process.python("-c", "import sys; print('first', file=sys.stderr); sys.exit('a reason')")
    with (
        pytest.raises(process.NotServing, match="did not start, it ended with status 1: a reason"),
        process.server(dies),
    ):
        pass
    with (
        pytest.raises(process.NotServing, match="ended at once, it ended with status 1: a reason"),
        process.server(dies, process.free_port()),
    ):
        pass


def test_a_server_that_dies_under_load_is_told_of() -> None:
    dies = process.python("-c", "import os; print(1, flush=True); os.abort()")
    with (
        pytest.raises(process.NotServing, match="no answer; the server killed by SIGABRT"),
        process.server(dies) as (pid, port),
    ):
        assert port == 1
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        raise process.WrongAnswer("no answer")


def test_a_row_that_crashes_or_hangs_has_no_figure() -> None:
    assert process.figure(process.python("-c", "print(1.5)")) == 1.5
    with pytest.raises(process.NoFigure, match="killed by SIGABRT"):
        process.figure(process.python("-c", "import os; os.abort()"))
    with pytest.raises(process.NoFigure, match="ended with status 1: why"):
        process.figure(process.python("-c", "import sys; sys.exit('why')"))
    with pytest.raises(process.NoFigure, match="no figure within"):
        process.figure(process.python("-c", "import time; time.sleep(1000)"), timeout=0.01)


def test_loops_that_are_not_installed_are_named() -> None:
    names, missing = loops.installed(["asyncio", "hotloop", "no_such_loop"])
    assert names == ["asyncio", "hotloop"]
    assert missing == {"no_such_loop": "ended with status 1: ModuleNotFoundError: No module named 'no_such_loop'"}
    assert loops.factory("asyncio") is asyncio.SelectorEventLoop
    assert loops.versions(["asyncio", "hotloop-proactor"]).keys() == {"hotloop-proactor"}


def test_rounds_are_interleaved(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def measure(loop: str) -> int:
        order.append(loop)
        return len(order)

    assert interleave("row", ["a", "b"], 2, measure, str) == ({"a": [1, 4], "b": [2, 3]}, {})
    assert order == ["a", "b", "b", "a"]
    assert capsys.readouterr().err.splitlines()[-1] == "row, round 2 of 2, a: 4"


def test_a_loop_that_fails_has_no_figures_and_without_the_control_nobody_has() -> None:
    calls: list[str] = []

    def failing(name: str) -> Callable[[str], int]:
        def measure(loop: str) -> int:
            calls.append(loop)
            if loop == name and calls.count(loop) == 2:
                raise process.WrongAnswer("why")
            return 1

        return measure

    assert interleave("row", ["asyncio", "other"], 3, failing("other"), str) == (
        {"asyncio": [1, 1, 1]},
        {"other": "why"},
    )
    calls.clear()
    assert interleave("row", ["asyncio", "other"], 3, failing("asyncio"), str) == ({}, {"asyncio": "why"})


def test_ratios_are_taken_within_a_round() -> None:
    ratio = Ratio.of([1.0, 20.0, 3.0], [2.0, 10.0, 3.0])
    assert (ratio.median, ratio.lowest, ratio.highest) == (1.0, 0.5, 2.0)
    assert str(ratio) == "1.00 (0.50-2.00)"


def test_results_compare_with_the_control() -> None:
    rounds = {
        "row": {
            "asyncio": [process.Load(100, 1.0, 100.0, 10.0, 20.0, 8.0, 0)],
            "other": [process.Load(300, 1.0, 300.0, 5.0, 9.0, 2.0, 0)],
            "floor": [process.Load(300, 1.0, 300.0, 5.0, 9.0, 1.6, 0)],
        }
    }
    last = network.to_markdown(rounds).splitlines()[-2]
    assert [cell.strip() for cell in last.strip("|").split("|")] == [
        *["row", "other", "300", "5", "9", "2.00"],
        *["3.00 (3.00-3.00)", "0.25 (0.25-0.25)", "1.25 (1.25-1.25)"],
    ]


def test_the_floor_asks_for_as_much_as_the_program_it_stands_beside() -> None:
    told = {name: row.told for name, row in network.ROWS.items() if "floor" in row.floors}
    assert {name for name, arguments in told.items() if arguments == ["udp"]} == {"udp_pingpong", "udp_flood"}
    asking = {name for name, arguments in told.items() if arguments == [str(64 * 1024)]}
    assert asking == {name for name in told if name.startswith(("echo_buffered", "echo_streams", "echo_sock"))}
    assert all(arguments == [] for name, arguments in told.items() if name.startswith("echo_protocol"))


def test_the_crate_stands_beside_the_floors_in_the_row_of_fifty_connections() -> None:
    row = network.ROWS["echo_protocol_1k"]
    assert (row.size, row.connections) == (1024, 50)
    assert row.floors == ["floor", "floor-uring", "crate", "crate-proactor"]
    others = [other.floors for other in network.ROWS.values() if other != row]
    assert not any("crate" in floors or "crate-proactor" in floors for floors in others)


@pytest.mark.parametrize(("row", "seconds"), [("tls_100mb", 2), ("writelines_100mb", 2), ("echo_tls_protocol_1m", 0.5)])
def test_loads_of_downloads_last_longer(row: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(process, "load", lambda arguments, *, pid, duration: asked.append(duration))
    network.measure(network.ROWS[row], "asyncio", 0.5)
    assert asked == [seconds]


def test_a_table_lines_up() -> None:
    assert table(["a", "b", "figure"], [["long", "b", "1"]]).splitlines() == [
        "| a    | b | figure |",
        "| ---- | - | -----: |",
        "| long | b |      1 |",
    ]
