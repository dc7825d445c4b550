"""All checks, whatever they are of: `CHECKS`, by name; and who is excepted from which."""

from __future__ import annotations

from benchmarks import loops
from benchmarks.conduct import (
    callbacks,
    children,
    connections,
    readers,
    runs,
    sockets,
    tasks,
    threads,
    timers,
    tls,
    transports,
)
from benchmarks.conduct.check import Check

CHECKS: dict[str, Check] = {
    check.name: check
    for module in (callbacks, timers, threads, tasks, transports, readers, connections, tls, sockets, children, runs)
    for check in module.CHECKS
}

SMALL_WRITES = "by intention: small writes of a turn go out together when it ends (docs/differences.md, the proactor)"

# Checks that a loop of this project does not keep by intention, and why. It counts as not keeping them.
EXCEPTED: dict[tuple[str, str], str] = {
    (loops.PROACTOR, name): SMALL_WRITES
    for name in (
        "a_write_leaves_at_once",
        "an_answer_leaves_at_once",
        "answers_of_a_turn_leave_at_once",
        "a_header_leaves_while_its_callback_waits",
        "a_stream_writer_writes_at_once",
        "a_write_to_tls_leaves_at_once",
    )
}
