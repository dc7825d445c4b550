"""Fixtures of the ecosystem tests: the loops, the services, a certificate authority."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from harness import refusal

from .harness import LoopUnderTest, UvicornServers
from .services import PostgreSQL, Redis, run_postgresql, run_redis

#: The oracle, and the loops that are compared with it. `HOTLOOP_ECOSYSTEM_FACTORY` puts another loop in the
#: selector's place ("uvloop:new_event_loop"), to learn whether a failure here is hotloop's alone.
LOOPS = (
    LoopUnderTest("asyncio", "asyncio:SelectorEventLoop"),
    LoopUnderTest("selector", os.environ.get("HOTLOOP_ECOSYSTEM_FACTORY", "hotloop:new_event_loop")),
    LoopUnderTest("proactor", "hotloop:ProactorEventLoop"),
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Bound each test of this directory: a loop that hangs would otherwise hang the whole run."""
    item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session", params=LOOPS, ids=lambda loop: loop.name)
def loop_under_test(request: pytest.FixtureRequest) -> LoopUnderTest:
    """The loop that the test runs on."""
    if request.param.name == "proactor" and refusal() is not None:
        pytest.skip(refusal())
    return request.param


@pytest.fixture(scope="session")
def oracle() -> LoopUnderTest:
    """Stock asyncio, for the tests that compare byte by byte."""
    return LOOPS[0]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have what a test leaves unclosed reported in that test."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def uvicorn_servers() -> Iterator[UvicornServers]:
    """Servers under uvicorn that tests share."""
    servers = UvicornServers()
    yield servers
    servers.stop()


@pytest.fixture
def short_tmp() -> Iterator[str]:
    """A directory for Unix sockets, whose paths may have no more than 107 bytes: pytest's own can be too deep."""
    with tempfile.TemporaryDirectory(prefix="hotloop-") as directory:
        yield directory


@dataclass(frozen=True)
class Certificates:
    """A certificate for 127.0.0.1 and localhost, and contexts that use and trust it."""

    chain: Path
    key: Path
    authority: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate made for this session."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    made = Certificates(directory / "chain.pem", directory / "key.pem", directory / "authority.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(made.chain), append=number > 0)
    issued.private_key_pem.write_to_path(str(made.key))
    authority.cert_pem.write_to_path(str(made.authority))
    return made


@contextlib.contextmanager
def required() -> Iterator[None]:
    """Skips where a service is neither installed nor could be.

    Where ``scripts/services.sh`` would install it, its absence is a failure, so that a run with fewer tests is never
    taken for a whole one.
    """
    try:
        yield
    except FileNotFoundError as missing:
        if os.geteuid() == 0 and shutil.which("apt-get"):
            pytest.fail(f"{missing}: run scripts/services.sh")
        pytest.skip(f"{missing}, and installing it takes root and apt-get")


@pytest.fixture(scope="session")
def postgresql(certificates: Certificates) -> Iterator[PostgreSQL]:
    """A PostgreSQL for this session. It speaks TLS where asked, on TCP only."""
    with contextlib.ExitStack() as stack:
        with required():
            running = stack.enter_context(run_postgresql(certificates.chain, certificates.key))
        yield running


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis for this session."""
    with contextlib.ExitStack() as stack:
        with required():
            running = stack.enter_context(run_redis())
        yield running
