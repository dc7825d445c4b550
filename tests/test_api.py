"""docs/api.md: asyncio's pages of the event loop and of policies, row by row, in Python and in Rust, each with its test.

python tests/test_api.py    # writes the page
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from pathlib import Path

import pytest
from test_methods import PROOFS
from test_methods import source_of as python_source

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "api.md"
CRATE = ROOT / "crates" / "hotloop"

#: A section has a line for each name: asyncio's name, the Python test (`file:function`; none: that of docs/methods.md),
#: then the names in Rust and their test (`file:function`, or `example` for the one in the documentation), or, after a
#: dash, why there is none.
ROWS = """
# Obtaining the event loop
get_running_loop | run:test_the_running_loop_is_known_while_it_runs | get_running_loop | asyncio:a_running_loop_is_neither_run_nor_closed_and_no_other_runs_beside_it
get_event_loop | policy:test_the_functions_do_what_those_of_asyncio_do | get_event_loop | asyncio:a_policy_decides_and_none_restores_the_default
set_event_loop | policy:test_the_functions_do_what_those_of_asyncio_do | set_event_loop | asyncio:a_policy_decides_and_none_restores_the_default
new_event_loop | policy:test_new_event_loop_is_new_each_time | new_event_loop | asyncio:a_policy_decides_and_none_restores_the_default
run | policy:test_run_runs_on_hotloop | run | example

# Running and stopping the loop
loop.run_until_complete | | BaseEventLoop::run_until_complete | asyncio:a_task_is_woken_by_its_own_thread_and_by_others
loop.run_forever | | BaseEventLoop::run_forever | asyncio:another_thread_wakes_a_loop_that_waits
loop.stop | | BaseEventLoop::stop, Stopper::stop | asyncio:another_thread_wakes_a_loop_that_waits
loop.is_running | | BaseEventLoop::is_running | asyncio:a_running_loop_is_neither_run_nor_closed_and_no_other_runs_beside_it
loop.is_closed | | BaseEventLoop::is_closed | asyncio:a_closed_loop_refuses_and_has_dropped_what_was_scheduled
loop.close | | BaseEventLoop::close | asyncio:a_closed_loop_refuses_and_has_dropped_what_was_scheduled
loop.shutdown_asyncgens | | - Rust has no asynchronous generators: a stream ends by being dropped.
loop.shutdown_default_executor | | BaseEventLoop::shutdown_default_executor, Executor::shutdown | asyncio:an_executor_that_is_shut_down_ends_its_work_and_takes_no_more

# Scheduling callbacks
loop.call_soon | | BaseEventLoop::call_soon | asyncio:callbacks_run_in_the_order_of_the_calls_and_timers_behind_them
loop.call_soon_threadsafe | | ThreadsafeHandle::call_soon_threadsafe | asyncio:another_thread_wakes_a_loop_that_waits
loop.call_later | | BaseEventLoop::call_later | asyncio:a_timer_runs_at_its_time_and_not_before
loop.call_at | | BaseEventLoop::call_at | asyncio:a_timer_runs_at_its_time_and_not_before
loop.time | | BaseEventLoop::time | asyncio:each_selector_serves_keeps_time_and_is_woken

# Futures and tasks
loop.create_future | | BaseEventLoop::create_future | asyncio:a_future_is_set_once_and_tells_all_who_wait
loop.create_task | | BaseEventLoop::create_task | asyncio:a_cancelled_task_drops_its_future_and_says_so
loop.set_task_factory | | - A task is generic over its future: wrap the future that is given to create_task.
loop.get_task_factory | | - As set_task_factory.

# Opening network connections
loop.create_connection | | BaseEventLoop::create_connection, BaseEventLoop::create_connection_with_happy_eyeballs, BaseEventLoop::create_connection_with_sock, BaseEventLoop::create_tls_connection | asyncio:a_client_connects_and_ends_with_the_peer
loop.create_datagram_endpoint | | BaseEventLoop::create_datagram_endpoint, BaseEventLoop::create_datagram_endpoint_with_sock | io/datagrams:datagrams_keep_their_order_their_bounds_and_their_sender
loop.create_unix_connection | | BaseEventLoop::create_unix_connection | io/connections:a_unix_server_serves_and_removes_its_path

# Creating network servers
loop.create_server | | BaseEventLoop::create_server, BaseEventLoop::create_server_with_sock, BaseEventLoop::create_tls_server | asyncio:a_server_gives_back_more_than_fits_and_waits_for_its_clients
loop.create_unix_server | | BaseEventLoop::create_unix_server | io/connections:a_unix_server_serves_and_removes_its_path
loop.connect_accepted_socket | | BaseEventLoop::create_connection_with_sock | io/connections:sockets_of_the_program_are_served_and_connected

# Transferring files and TLS upgrade
loop.sendfile | | BaseEventLoop::sendfile | io/sendfile:a_file_follows_what_was_written_and_is_followed
loop.start_tls | | BaseEventLoop::start_tls_client, BaseEventLoop::start_tls_server | io/tls:a_connection_goes_over_to_tls

# Watching file descriptors
loop.add_reader | | BaseEventLoop::add_reader | asyncio:a_reader_is_called_while_there_is_something_until_it_is_removed
loop.remove_reader | | BaseEventLoop::remove_reader | asyncio:a_reader_is_called_while_there_is_something_until_it_is_removed
loop.add_writer | | BaseEventLoop::add_writer | io/sockets:what_a_transport_has_is_refused
loop.remove_writer | | BaseEventLoop::remove_writer | example

# Working with sockets directly
loop.sock_recv | | BaseEventLoop::sock_recv | io/sockets:a_receive_waits_for_bytes_and_for_the_end
loop.sock_recv_into | | BaseEventLoop::sock_recv_into | io/sockets:a_receive_waits_for_bytes_and_for_the_end
loop.sock_recvfrom | | BaseEventLoop::sock_recvfrom | io/sockets:a_datagram_comes_with_its_sender
loop.sock_recvfrom_into | | BaseEventLoop::sock_recvfrom_into | io/sockets:a_datagram_comes_with_its_sender
loop.sock_sendall | | BaseEventLoop::sock_sendall | io/sockets:all_is_sent_that_does_not_fit_at_once
loop.sock_sendto | | BaseEventLoop::sock_sendto | io/sockets:a_datagram_comes_with_its_sender
loop.sock_connect | | BaseEventLoop::sock_connect | io/sockets:sockets_connect_and_are_accepted
loop.sock_accept | | BaseEventLoop::sock_accept | io/sockets:sockets_connect_and_are_accepted
loop.sock_sendfile | | BaseEventLoop::sock_sendfile | io/sockets:a_file_is_sent_from_where_one_says_and_its_position_is_behind_that

# DNS
loop.getaddrinfo | | BaseEventLoop::getaddrinfo | example
loop.getnameinfo | | BaseEventLoop::getnameinfo | io/names:an_address_is_named_by_its_numbers_where_that_is_asked_for

# Working with pipes
loop.connect_read_pipe | | BaseEventLoop::connect_read_pipe | io/pipes:a_pipe_is_read_to_its_end
loop.connect_write_pipe | | BaseEventLoop::connect_write_pipe | io/pipes:a_pipe_is_written_to_beyond_what_fits

# Unix signals
loop.add_signal_handler | | BaseEventLoop::add_signal_handler | example
loop.remove_signal_handler | | BaseEventLoop::remove_signal_handler | example

# Executing code in thread or process pools
loop.run_in_executor | | BaseEventLoop::run_in_executor, Executor::submit | asyncio:a_task_is_woken_by_its_own_thread_and_by_others
loop.set_default_executor | | BaseEventLoop::set_default_executor | example

# Error handling
loop.set_exception_handler | | BaseEventLoop::set_exception_handler | asyncio:a_panic_in_a_callback_is_reported_and_the_loop_goes_on
loop.get_exception_handler | | BaseEventLoop::get_exception_handler | example
loop.default_exception_handler | | BaseEventLoop::default_exception_handler | example
loop.call_exception_handler | | BaseEventLoop::call_exception_handler | asyncio:an_exception_handler_that_panics_does_not_end_the_loop

# Debug mode
loop.get_debug | | BaseEventLoop::get_debug | asyncio:a_policy_decides_and_none_restores_the_default
loop.set_debug | | BaseEventLoop::set_debug | asyncio:a_slow_callback_is_reported_in_debug_mode
loop.slow_callback_duration | debug_mode:test_slow_callbacks_are_told_as_on_stock_asyncio | BaseEventLoop::set_slow_callback_duration | asyncio:a_slow_callback_is_reported_in_debug_mode

# Running subprocesses
loop.subprocess_exec | | BaseEventLoop::subprocess_exec | io/subprocesses:a_process_takes_and_gives_more_than_pipes_hold
loop.subprocess_shell | | BaseEventLoop::subprocess_shell | io/subprocesses:the_shell_says_how_it_ended

# Callback handles
Handle.cancel | handles:test_a_cancelled_callback_does_not_run | Handle::cancel | asyncio:what_is_cancelled_does_not_run_and_is_dropped_at_once
Handle.cancelled | handles:test_a_cancelled_callback_does_not_run | Handle::is_cancelled | asyncio:what_is_cancelled_does_not_run_and_is_dropped_at_once
Handle.get_context | handles:test_get_context_is_the_context_of_the_run | - Rust has no context variables: a closure has what it needs.
TimerHandle.cancel | timers:test_a_cancelled_timer_does_not_fire | TimerHandle::cancel | asyncio:what_is_cancelled_does_not_run_and_is_dropped_at_once
TimerHandle.cancelled | timers:test_scheduled_and_arguments_follow_the_life_of_a_timer | TimerHandle::is_cancelled | asyncio:what_is_cancelled_does_not_run_and_is_dropped_at_once
TimerHandle.when | timers:test_when_is_kept_as_on_stock_asyncio | TimerHandle::when | asyncio:a_timer_runs_at_its_time_and_not_before

# Server objects
Server.close | server:test_the_life_of_a_server_is_that_of_stock_asyncio | Server::close | asyncio:a_server_gives_back_more_than_fits_and_waits_for_its_clients
Server.close_clients | server:test_clients_can_be_closed_and_aborted_from_3_13_on | Server::close_clients | io/connections:a_server_closes_and_ends_its_connections
Server.abort_clients | server:test_clients_can_be_closed_and_aborted_from_3_13_on | Server::abort_clients | io/connections:a_server_closes_and_ends_its_connections
Server.get_loop | server:test_the_life_of_a_server_is_that_of_stock_asyncio | - A server belongs to the loop that it was made by, which whoever made it has.
Server.start_serving | server:test_start_serving_can_be_put_off | - A server serves once it is made: make it when it is to serve.
Server.serve_forever | server:test_the_life_of_a_server_is_that_of_stock_asyncio | Server::serve_forever | io/connections:a_server_that_is_served_no_longer_is_closed
Server.is_serving | server:test_start_serving_can_be_put_off | Server::is_serving | io/connections:a_server_that_is_served_no_longer_is_closed
Server.wait_closed | server:test_wait_closed_waits_for_the_connections_as_on_stock_asyncio | Server::wait_closed | asyncio:a_server_gives_back_more_than_fits_and_waits_for_its_clients
Server.sockets | server:test_the_sockets_of_a_server_are_those_of_stock_asyncio | Server::addresses | asyncio:a_server_gives_back_more_than_fits_and_waits_for_its_clients

# Event loop implementations
SelectorEventLoop | selectors:test_names_the_driver | SelectorEventLoop::new, SelectorEventLoop::with_selector | asyncio:each_selector_serves_keeps_time_and_is_woken
ProactorEventLoop | proactor:test_the_kernel_has_no_thread_for_it | ProactorEventLoop::new | ring/loops:what_is_written_arrives_at_a_slow_peer
EventLoop | choice:test_a_loop_is_what_its_class_says | - asyncio's other name of the loop that the platform has: SelectorEventLoop here.
AbstractEventLoop | run:test_is_a_selector_event_loop_of_asyncio | AbstractEventLoop | example

# Policies
get_event_loop_policy | policy:test_the_functions_do_what_those_of_asyncio_do | get_event_loop_policy | example
set_event_loop_policy | policy:test_the_functions_do_what_those_of_asyncio_do | set_event_loop_policy | asyncio:a_policy_decides_and_none_restores_the_default
AbstractEventLoopPolicy | policy:test_a_policy_of_ones_own_makes_the_loops | AbstractEventLoopPolicy | asyncio:a_policy_decides_and_none_restores_the_default
AbstractEventLoopPolicy.get_event_loop | policy:test_a_policy_of_ones_own_makes_the_loops | AbstractEventLoopPolicy::get_event_loop | asyncio:a_policy_decides_and_none_restores_the_default
AbstractEventLoopPolicy.set_event_loop | policy:test_a_policy_of_ones_own_makes_the_loops | AbstractEventLoopPolicy::set_event_loop | asyncio:a_policy_decides_and_none_restores_the_default
AbstractEventLoopPolicy.new_event_loop | policy:test_a_policy_of_ones_own_makes_the_loops | AbstractEventLoopPolicy::new_event_loop | asyncio:a_policy_decides_and_none_restores_the_default
AbstractEventLoopPolicy.get_child_watcher | subprocesses:test_a_watcher_that_the_program_has_chosen_is_used | - The loop itself watches its children; asyncio has removed this in 3.14.
AbstractEventLoopPolicy.set_child_watcher | subprocesses:test_a_watcher_that_the_program_has_chosen_is_used | - As get_child_watcher.
DefaultEventLoopPolicy | policy:test_get_event_loop_in_a_thread_without_one_is_refused | DefaultEventLoopPolicy | asyncio:a_policy_decides_and_none_restores_the_default
"""

HEAD = """# API

asyncio's pages of the [event loop](https://docs.python.org/3/library/asyncio-eventloop.html) and of
[policies](https://docs.python.org/3/library/asyncio-policy.html), row by row. In Python hotloop has asyncio's names and
signatures; in Rust, what `hotloop::asyncio` has for each. A cell is the test that shows it: those of Python run on stock
asyncio too, those of Rust on every selector and on the proactor; *example* is the example in the documentation of that name,
which is run as a test. `python tests/test_api.py` writes this page.
"""


class Row:
    """A line of a section."""

    def __init__(self, line: str) -> None:
        self.name, python, rust, *proof = (cell.strip() for cell in line.split("|"))
        self.python = python or PROOFS[self.name.removeprefix("loop.")]
        #: Why there is none in Rust.
        self.reason = rust.removeprefix("- ") if rust.startswith("- ") else None
        self.rust = [] if self.reason else rust.split(", ")
        self.proof = proof[0] if proof else ""

    def cells(self) -> list[str]:
        file, function = self.python.split(":")
        cells = [f"`{self.name}`", f"[{function}](../tests/test_{file}.py)"]
        if self.reason:
            return [*cells, "", self.reason]
        cells.append(", ".join(f"`{name}`" for name in self.rust))
        if self.proof == "example":
            return [*cells, f"[example](../{source_of(self.rust[0]).relative_to(ROOT)})"]
        file, function = self.proof.split(":")
        return [*cells, f"[{function}](../crates/hotloop/tests/{file}.rs)"]


@cache
def sections() -> dict[str, list[Row]]:
    """The rows of each section."""
    found: dict[str, list[Row]] = {}
    for line in ROWS.strip().splitlines():
        if line.startswith("# "):
            rows = found.setdefault(line.removeprefix("# "), [])
        elif line:
            rows.append(Row(line))
    return found


def all_rows() -> list[Row]:
    return [row for rows in sections().values() for row in rows]


@cache
def rust_sources() -> dict[Path, str]:
    """The public interface of the crate, as it is written."""
    return {path: path.read_text() for path in sorted((CRATE / "src" / "asyncio").rglob("*.rs"))}


def source_of(name: str) -> Path:
    """Where a name of the crate is defined, be it `Type::function`, a function or a type."""
    owner, _, function = name.rpartition("::")
    item = rf"^ *(pub (async )?fn|fn|pub (struct|trait|enum)) {function}\b"
    for path, text in rust_sources().items():
        of_owner = not owner or re.search(rf"^(impl(<.*>)?|pub (trait|struct)) {owner}\b", text, re.MULTILINE)
        if of_owner and re.search(item, text, re.MULTILINE):
            return path
    raise LookupError(f"the crate has no {name}")


def page() -> str:
    """The page as it should be."""
    lines = [HEAD]
    for title, rows in sections().items():
        lines += [f"## {title}", "", "| asyncio | in Python | in Rust | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row.cells())} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_name_has_a_row():
    rows = {row.name for row in all_rows()}
    names = {f"loop.{name}" for name in public(asyncio.AbstractEventLoop)}
    classes = {cls.__name__: cls for cls in (asyncio.Handle, asyncio.TimerHandle, asyncio.Server)}
    # Deprecated under its name since 3.14, and to be removed with 3.16.
    for name in ("_AbstractEventLoopPolicy", "AbstractEventLoopPolicy"):
        if name in vars(asyncio.events):
            classes[name.strip("_")] = vars(asyncio.events)[name]
    # What a class inherits has the row of the class above.
    names |= {f"{cls}.{name}" for cls, found in classes.items() for name in public(found) & vars(found).keys()}
    assert sorted(names - rows) == []


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: row.name)
def test_the_python_test_is_there(row):
    file, function = row.python.split(":")
    assert function in {getattr(node, "name", None) for node in python_source(file).body}


@pytest.mark.parametrize("row", [row for row in all_rows() if row.rust], ids=lambda row: row.name)
def test_the_rust_test_is_there_and_uses_the_name(row):
    names = [name.rpartition("::")[2] for name in row.rust]
    for name in row.rust:
        source_of(name)
    if row.proof == "example":
        text = "\n".join(re.findall(r"^ *///.*", source_of(row.rust[0]).read_text(), re.MULTILINE))
    else:
        file, function = row.proof.split(":")
        text = (CRATE / "tests" / f"{file}.rs").read_text()
        assert f"#[test]\nfn {function}(" in text, f"no test {row.proof}"
    # Of a test the whole file: its helpers, beside it, make servers and loops for it.
    assert any(re.search(rf"\b{name}\b", text) for name in names), f"{row.proof} does not use {names}"


def test_the_page_is_as_generated():
    assert PAGE.read_text() == page(), "python tests/test_api.py writes it"


if __name__ == "__main__":
    PAGE.write_text(page())
