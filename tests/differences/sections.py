"""The sections of the page, in its order."""

from __future__ import annotations

from differences import datagrams, inside, own_selector, proactor, processes, sockets, streams, threads, tls
from differences.entry import Entry, Probe, Section

HEAD = """
# Differences from stock asyncio

What a program can observe on `hotloop.SelectorEventLoop` and not on `asyncio.SelectorEventLoop` of the same Python. A
difference that is not on this page is a bug. `hotloop.ProactorEventLoop` has these too, and [some of its
own](#the-proactor); asyncio has no such loop on Unix, so it is held to the same reference.

Under a difference is what small programs have measured of it on the three loops, on CPython {versions}; a row that
names no version holds for all of them. `tests/test_differences.py` measures it again on the running Python, and
`python tests/differences` writes this page. [methods.md](methods.md) has each method of the loop with the test that
compares it, [conformance.md](conformance.md) what CPython's own tests say.
"""

BY_INTENTION = Section("By intention", level=2)

INHERITED = Section(
    "Inherited, and therefore the same",
    """
    This is asyncio's own Python, of the version that is running; it uses the loop through the methods above:

    - `create_connection` to names and with options, `create_server`, `Server`, `start_serving`, happy eyeballs,
      `create_unix_server`, `connect_accepted_socket`;
    - TLS: what fails in the handshake and the shutdown of `SSLProtocol`, the making and checking of contexts;
    - `create_datagram_endpoint`; `connect_read_pipe` and `connect_write_pipe` above their native transports; subprocesses,
      but for how the loop hears of their end: `Popen` spawns them, and asyncio's transport of a child and its streams are
      over native pipes;
    - `loop.sendfile` over the native `sock_sendfile`, and every `sock_*` for objects that are not of exactly
      `socket.socket`;
    - `add_signal_handler` and the self-pipe under it, `run_in_executor`, look-ups of names, `getnameinfo`;
    - `run_forever`, `run_until_complete`, `shutdown_asyncgens`, exception handlers, task factories, `Runner`;
    - `Task`, `Future`, locks, queues, `StreamWriter`, timeouts, task groups.
    """,
    level=2,
)

SECTIONS: list[Section] = [
    BY_INTENTION,
    *streams.SECTIONS,
    *tls.SECTIONS,
    sockets.ADDRESSES,
    sockets.NODELAY,
    *threads.SECTIONS,
    sockets.ACCEPTING,
    sockets.CONNECTING,
    *datagrams.SECTIONS,
    *processes.SECTIONS,
    *own_selector.SECTIONS,
    *proactor.SECTIONS,
    *inside.SECTIONS,
    INHERITED,
]


def entries() -> list[Entry]:
    """Every difference."""
    return [entry for section in SECTIONS for entry in section.entries]


def probes() -> list[Probe]:
    """Every probe, in the page's order."""
    return [probe for entry in entries() for probe in entry.probes]
