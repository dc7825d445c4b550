"""Whose instructions a request takes: what is asked of each server, and how the counts are read."""

from __future__ import annotations

import pytest

from benchmarks import callgrind, process, programs, shares
from benchmarks.shares import Share

ROWS = [*shares.ECHOES, *programs.PROGRAMS]


@pytest.mark.parametrize("row", ROWS)
def test_servers_answer_what_they_are_asked(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "CONNECTIONS", 3)
    port = process.free_port() if row in programs.PROGRAMS else None
    with process.server(shares.command_of(row, "hotloop", port or 0), port) as (pid, found):
        shares.exchange(found, shares.request_of(row), rounds=4)
        assert all(ticks >= 0 for ticks in process.times(pid))


def test_a_wrong_answer_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "PATIENCE", 0.2)
    with (
        process.server(shares.command_of("echo_protocol_1k", "asyncio", 0)) as (_, port),
        pytest.raises(process.WrongAnswer, match="no whole answer within"),
    ):
        shares.exchange(port, shares.http("/", "hello"), rounds=1)


def test_a_server_that_is_told_to_end_is_waited_for() -> None:
    with (
        process.server(shares.command_of("echo_protocol_1k", "asyncio", 0)) as (pid, _),
        pytest.raises(process.NotServing, match="did not end"),
    ):
        process.wait_until_it_ends(pid, timeout=0.0)


def test_counts_are_by_object_and_leave_out_what_was_called() -> None:
    text = """
events: Ir
ob=(1) /usr/bin/python3.14
fn=(1) main
1 10
cob=(2) /project/_hotloop.so
cfn=(2) wait
calls=1 7
1 900
ob=(2)
fn=(2)
7 25
ob=(1)
fn=(1)
+3 5
"""
    assert callgrind.by_object(text) == {"python3.14": 15, "_hotloop.so": 25}


def test_the_difference_of_two_runs_is_that_of_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(row: str, loop: str, rounds: int) -> dict[str, int]:
        requests = rounds * shares.CONNECTIONS
        return {"_hotloop.so": 1_000 + 7 * requests, "libc.so.6": 50 + 3 * requests, "python3.14": 5 + 90 * requests}

    monkeypatch.setattr(shares, "counted", lambda *run: shares.Counter(counted(*run)))
    monkeypatch.setattr(shares, "kernel_part", lambda row, loop: 0.5)
    share = shares.measure("echo_protocol_1k", "hotloop")
    assert share == Share(total=100.0, own=7.0, library=3.0, kernel=0.5)
    assert share.own_of_all == pytest.approx(0.035)
    assert shares.measure("echo_protocol_1k", "asyncio").own is None


def test_the_page_has_a_line_for_each() -> None:
    found = {
        ("aiohttp", "asyncio"): Share(total=200_000.0, own=None, library=5_000.0, kernel=0.25),
        ("aiohttp", "hotloop"): Share(total=100_000.0, own=4_000.0, library=6_000.0, kernel=0.5),
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shares.page(found).splitlines() if "|" in line]
    assert rows[2:] == [
        ["aiohttp", "asyncio", "200,000", "", "5,000", "195,000", "25%", ""],
        ["aiohttp", "hotloop", "100,000", "4,000", "6,000", "90,000", "50%", "2%"],
    ]
