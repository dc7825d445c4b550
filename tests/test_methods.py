"""docs/methods.md: each method of `asyncio.AbstractEventLoop`, whose it is on which Python, and the test that shows it.

python tests/test_methods.py    # records what this Python has, in tests/methods, and writes the page
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import platform
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import hotloop

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "methods.md"
RECORDS = TESTS / "methods"

#: The minor versions of Python 3 that the page is about.
VERSIONS = (11, 12, 13, 14, 15)

LOOPS = {"selector": hotloop.SelectorEventLoop, "proactor": hotloop.ProactorEventLoop}

#: The test of each method: `file:function`. Tests run on stock asyncio and on both of hotloop's loops.
PROOFS = {
    "add_reader": "watchers:test_a_second_reader_replaces_the_first",
    "add_signal_handler": "signals:test_a_handler_is_called_with_its_arguments",
    "add_writer": "watchers:test_a_writer_is_called_while_there_is_room",
    "call_at": "timers:test_fires_when_call_at_says",
    "call_exception_handler": "errors:test_a_handler_gets_loop_and_context",
    "call_later": "timers:test_zero_and_negative_delays_give_a_timer_handle",
    "call_soon": "call_soon:test_what_a_callback_schedules_waits_for_the_next_turn",
    "call_soon_threadsafe": "threadsafe:test_keeps_the_order_with_call_soon_of_the_loops_own_thread",
    "close": "descriptors:test_closing_the_loop_closes_its_descriptors_at_once",
    "connect_accepted_socket": "server:test_connect_accepted_socket",
    "connect_read_pipe": "pipes:test_a_stream_reader_over_a_pipe",
    "connect_write_pipe": "pipes:test_a_stream_writer_over_a_pipe",
    "create_connection": "stream_transport:test_create_connection_may_be_cancelled_at_any_step",
    "create_datagram_endpoint": "descriptors:test_create_datagram_endpoint_may_be_cancelled_at_any_step",
    "create_future": "run:test_futures_are_those_of_asyncio",
    "create_server": "server:test_the_sockets_of_a_server_are_those_of_stock_asyncio",
    "create_task": "run:test_tasks_take_the_keywords_of_this_python",
    "create_unix_connection": "unix:test_a_connect_that_fails_ends_as_on_stock_asyncio",
    "create_unix_server": "unix:test_a_server_on_a_socket_passed_in",
    "default_exception_handler": "errors:test_the_default_handler_logs_as_on_stock_asyncio",
    "get_debug": "debug_mode:test_debug_mode_can_be_switched_while_the_loop_runs",
    "get_exception_handler": "errors:test_a_handler_gets_loop_and_context",
    "get_task_factory": "run:test_a_task_factory_is_used",
    "getaddrinfo": "getaddrinfo:test_agrees_with_the_socket_module",
    "getnameinfo": "getaddrinfo:test_getnameinfo_agrees_with_the_socket_module",
    "is_closed": "run:test_states",
    "is_running": "run:test_states",
    "remove_reader": "watchers:test_removing_tells_whether_there_was_one",
    "remove_signal_handler": "signals:test_a_handler_is_called_with_its_arguments",
    "remove_writer": "watchers:test_reader_and_writer_of_one_descriptor_are_independent",
    "run_forever": "signals:test_an_exception_of_a_plain_handler_leaves_run_forever",
    "run_in_executor": "threadsafe:test_run_in_executor_and_its_thread_names",
    "run_until_complete": "run:test_run_until_complete_answers_and_raises",
    "sendfile": "sendfile:test_an_accepted_connection_sends_a_file",
    "set_debug": "debug_mode:test_debug_mode_can_be_switched_while_the_loop_runs",
    "set_default_executor": "threadsafe:test_work_is_done_by_the_executor_that_was_set",
    "set_exception_handler": "errors:test_a_handler_gets_loop_and_context",
    "set_task_factory": "run:test_a_task_factory_is_used",
    "shutdown_asyncgens": "run:test_asynchronous_generators_are_closed",
    "shutdown_default_executor": "traps:test_the_shutdown_of_the_executor_keeps_its_time_limit",
    "sock_accept": "sock:test_accept_waits_and_gives_a_socket_that_does_not_block",
    "sock_connect": "sock:test_connect",
    "sock_recv": "sock:test_recv_what_is_there_and_what_comes",
    "sock_recv_into": "sock:test_recv_into_a_buffer",
    "sock_recvfrom": "sock:test_udp_with_addresses",
    "sock_recvfrom_into": "sock:test_udp_with_addresses",
    "sock_sendall": "sock:test_sendall_fails_when_the_peer_is_gone",
    "sock_sendfile": "sock:test_sendfile_over_a_socket",
    "sock_sendto": "sock:test_udp_with_addresses",
    "start_tls": "tls:test_start_tls_refuses_in_the_same_words",
    "stop": "run:test_stop_is_forgotten_after_the_run",
    "subprocess_exec": "subprocesses:test_a_program_that_cannot_be_started",
    "subprocess_shell": "subprocesses:test_exit_statuses",
    "time": "timers:test_fires_when_call_at_says",
}

#: By which name a test goes to a method, where it does not call it itself.
WORDS = {
    "default_exception_handler": "call_exception_handler",
    "get_debug": "set_debug",
    "subprocess_exec": "create_subprocess_exec",
    "subprocess_shell": "create_subprocess_shell",
}

HEAD = """# Methods

Every method of `asyncio.AbstractEventLoop`, as hotloop's loops have it. *native* is Rust, *hotloop* is this project's Python,
which ends in native code, and *asyncio* is the running Python's own code, unchanged. Where versions of Python differ, the
loop does as the running one: under a version is whether the method is there, and which parameters it has that it had not on
the version before. The tests run on stock asyncio too, which is what they hold hotloop to; [the differences](differences.md)
have a page of their own, and so has what [CPython's own tests](conformance.md) say.

| system | selector | proactor |
|---|---|---|
| Linux | every method, as below | every method, as below, where the kernel (6.1 or later) and the machine's policy allow io_uring |
| macOS, BSDs, Windows | none: the Python package is Linux only | none |

[platforms.md](platforms.md) has more of systems. `python tests/test_methods.py` records what the running Python has and
writes this page; the table is of CPython {versions}, on Linux.

"""


def methods() -> list[str]:
    """The public methods of asyncio's abstract loop."""
    return [name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")]


def home(loop_class: type, method: str) -> str:
    """Whose code a method of a loop is."""
    owner = next(cls for cls in loop_class.__mro__ if method in vars(cls))
    module = owner.__module__
    return "native" if module == "hotloop._hotloop" else "hotloop" if module.startswith("hotloop") else "asyncio"


def parameters(loop_class: type, method: str) -> list[str]:
    """The names of a method's parameters, with their asterisks, without `self`."""
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = [*inspect.signature(getattr(loop_class, method)).parameters.values()][1:]
    return [marks.get(each.kind, "") + each.name for each in found]


def measured() -> dict:
    """What a record of this Python holds: for each method, whose it is on which loop, and asyncio's parameters."""
    return {
        method: {name: home(loop, method) for name, loop in LOOPS.items()}
        | {"parameters": parameters(asyncio.SelectorEventLoop, method)}
        for method in methods()
    }


def recorded(version: int = sys.version_info.minor) -> dict:
    """What is on record of a minor version of Python: the whole version as `python`, and `methods`."""
    return tomllib.loads((RECORDS / f"3.{version}.toml").read_text())


def record() -> None:
    """Put what this Python has on record."""
    lines = ["# Written by `python tests/test_methods.py`.", f"python = {json.dumps(platform.python_version())}"]
    for method, found in measured().items():
        lines += ["", f"[methods.{method}]", *(f"{key} = {json.dumps(value)}" for key, value in found.items())]
    (RECORDS / f"3.{sys.version_info.minor}.toml").write_text("\n".join(lines) + "\n")


def page() -> str:
    """The page as it should be."""
    records = {version: recorded(version) for version in VERSIONS}
    columns = ["method", *LOOPS, *(f"3.{version}" for version in VERSIONS), "test"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for method, proof in PROOFS.items():
        file, function = proof.split(":")
        found = {version: each["methods"].get(method) for version, each in records.items()}
        cells = [f"`{method}`", *(homes(found, loop) for loop in LOOPS), *presence(found)]
        lines.append(f"| {' | '.join(cells)} | [{function}](../tests/test_{file}.py) |")
    head = HEAD.format(versions=", ".join(each["python"] for each in records.values()))
    return head + "\n".join(lines) + "\n"


def homes(found: dict, loop: str) -> str:
    """Whose a method is on a loop; where that is not the same on all versions, on which."""
    owners: dict[str, list[str]] = {}
    for version, each in found.items():
        if each:
            owners.setdefault(each[loop], []).append(f"3.{version}")
    if len(owners) == 1:
        return next(iter(owners))
    return ", ".join(f"{owner} ({', '.join(versions)})" for owner, versions in owners.items())


def presence(found: dict) -> list[str]:
    """For each version whether it has a method, and with which new parameters."""
    cells = []
    before = None
    for each in found.values():
        new = (
            [] if not each or not before else [name for name in each["parameters"] if name not in before["parameters"]]
        )
        cells.append(", ".join(["yes", *(f"`{name}`" for name in new)]) if each else "no")
        before = each
    return cells


@cache
def source_of(file: str) -> ast.Module:
    """The source of a test file."""
    return ast.parse((TESTS / f"test_{file}.py").read_text())


def test_every_method_has_a_row():
    everywhere = {method for version in VERSIONS for method in recorded(version)["methods"]}
    assert [*PROOFS] == sorted(everywhere | {*methods()})


def test_what_is_on_record_is_what_this_python_has():
    on_record, found = recorded(), measured()
    if on_record["python"] != platform.python_version():
        # Parameters may come with a patch release.
        for each in (*on_record["methods"].values(), *found.values()):
            del each["parameters"]
    assert found == on_record["methods"], "python tests/test_methods.py"


def test_methods_take_the_parameters_of_this_python():
    wrong = []
    for method in methods():
        for loop in LOOPS.values():
            taken = parameters(loop, method)
            left = [name for name in parameters(asyncio.SelectorEventLoop, method) if name not in taken]
            if left and taken[-1][:2] != "**":
                wrong.append(f"{method} of {loop.__name__}: {left}")
    assert wrong == []


def test_the_tests_exist_and_call_the_methods():
    wrong = []
    for method, proof in PROOFS.items():
        file, function = proof.split(":")
        found = [node for node in source_of(file).body if getattr(node, "name", None) == function]
        whole = ast.unparse(source_of(file))
        if len(found) != 1 or not re.search(rf"\b({method}|{WORDS.get(method, method)})\b", whole):
            wrong.append(f"{method}: {proof}")
    assert wrong == []


def test_the_page_is_as_generated():
    assert PAGE.read_text() == page(), "python tests/test_methods.py writes it"


if __name__ == "__main__":
    record()
    PAGE.write_text(page())
