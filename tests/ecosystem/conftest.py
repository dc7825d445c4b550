"""Fixtures of the ecosystem tests: the loops, the services, a certificate authority."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from harness import refusal

from .harness import LoopUnderTest, ServerProcess, UvicornServers, on_free_port

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


def require(program: str, *places: str) -> str:
    """The path of a service's program.

    Skips where it is neither installed nor could be; where ``scripts/services.sh`` would install it, its absence is a
    failure, so that a run with fewer tests is never taken for a whole one.
    """
    path = shutil.which(program, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))
    if path is not None:
        return path
    if os.geteuid() == 0 and shutil.which("apt-get"):
        pytest.fail(f"{program} is not installed: run scripts/services.sh")
    pytest.skip(f"{program} is not installed, and installing it takes root and apt-get")


@dataclass(frozen=True)
class PostgreSQL:
    """A running PostgreSQL that only this session uses. It speaks TLS where asked, on TCP only."""

    port: int
    sockets: str
    """The directory of its Unix socket."""
    user: str

    @property
    def tcp(self) -> dict[str, Any]:
        """Arguments of ``asyncpg.connect`` that reach it over TCP, without TLS."""
        return {"host": "127.0.0.1", "port": self.port, "user": self.user, "database": "postgres", "ssl": False}

    @property
    def unix(self) -> dict[str, Any]:
        """Arguments of ``asyncpg.connect`` that reach it over its Unix socket."""
        return {"host": self.sockets, "port": self.port, "user": self.user, "database": "postgres"}


@pytest.fixture(scope="session")
def postgresql(certificates: Certificates) -> Iterator[PostgreSQL]:
    """A PostgreSQL of Debian's package, in a directory of its own."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    places = [str(path) for path in installed]
    initdb, postgres = require("initdb", *places), require("postgres", *places)
    # It refuses to run as root. The package made a user for it; its directory then must lie where that user may go.
    account: dict[str, Any] = {}
    directory = Path(tempfile.mkdtemp(prefix="hotloop-postgresql-"))
    if os.geteuid() == 0:
        account = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(directory, "postgres", "postgres")
    try:
        cluster = directory / "cluster"
        made = subprocess.run(
            [initdb, "--pgdata", str(cluster), "--username", "hotloop", "--auth", "trust", "--no-sync", "-E", "UTF8"],
            capture_output=True,
            text=True,
            cwd=directory,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            **account,
        )
        assert made.returncode == 0, made.stderr
        for name, source in (("server.crt", certificates.chain), ("server.key", certificates.key)):
            shutil.copyfile(source, cluster / name)
            (cluster / name).chmod(0o600)
            if account:
                shutil.chown(cluster / name, "postgres", "postgres")
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "ssl": "on",
            "fsync": "off",
            "max_connections": "60",
        }

        def start(port: int) -> tuple[ServerProcess, int]:
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            server = ServerProcess(
                [postgres, "-D", str(cluster), "-p", str(port), *options], cwd=directory, env={"LC_ALL": "C"}, **account
            )
            try:
                server.wait_for("database system is ready to accept connections")
            except BaseException:
                server.kill()
                raise
            return server, port

        server, port = on_free_port(start)
        try:
            yield PostgreSQL(port, str(directory), "hotloop")
            # SIGINT is its fast shutdown: it ends the sessions that are left, and itself with 0.
            server.send_signal(signal.SIGINT)
            assert server.wait() == 0, server.output
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)


@dataclass(frozen=True)
class Redis:
    """A running Redis that only this session uses."""

    port: int
    path: str
    """Its Unix socket."""


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis of Debian's package, keeping nothing on disk."""
    program = require("redis-server")
    directory = Path(tempfile.mkdtemp(prefix="hotloop-redis-"))
    path = str(directory / "socket")

    def start(port: int) -> tuple[ServerProcess, int]:
        server = ServerProcess(
            [
                *(program, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path),
                *("--dir", str(directory), "--save", "", "--appendonly", "no", "--daemonize", "no"),
            ]
        )
        try:
            server.wait_for("eady to accept connections")
        except BaseException:
            server.kill()
            raise
        return server, port

    try:
        server, port = on_free_port(start)
        try:
            yield Redis(port, path)
            assert server.stop() == 0
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory)
