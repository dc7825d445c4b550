"""The services that programs are tested against, each in a process of its own that only one run uses."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .harness import ServerProcess, on_free_port


def find(program: str, *places: str) -> str:
    """The path of a service's program. Raises `FileNotFoundError` where it is not installed."""
    path = shutil.which(program, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))
    if path is None:
        raise FileNotFoundError(f"{program} is not installed")
    return path


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


@contextlib.contextmanager
def run_postgresql(chain: Path | None = None, key: Path | None = None, user: str = "hotloop") -> Iterator[PostgreSQL]:
    """A PostgreSQL of Debian's package, in a directory of its own; with a certificate it speaks TLS.

    Raises `FileNotFoundError` where it is not installed.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    places = [str(path) for path in installed]
    initdb, postgres = find("initdb", *places), find("postgres", *places)
    # It refuses to run as root. The package made a user for it; its directory then must lie where that user may go.
    account: dict[str, Any] = {}
    directory = Path(tempfile.mkdtemp(prefix="hotloop-postgresql-"))
    if os.geteuid() == 0:
        account = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(directory, "postgres", "postgres")
    try:
        cluster = directory / "cluster"
        made = subprocess.run(
            [initdb, "--pgdata", str(cluster), "--username", user, "--auth", "trust", "--no-sync", "-E", "UTF8"],
            capture_output=True,
            text=True,
            cwd=directory,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            **account,
        )
        assert made.returncode == 0, made.stderr
        for name, source in (("server.crt", chain), ("server.key", key)):
            if source is None:
                continue
            shutil.copyfile(source, cluster / name)
            (cluster / name).chmod(0o600)
            if account:
                shutil.chown(cluster / name, "postgres", "postgres")
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "ssl": "off" if chain is None else "on",
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
            yield PostgreSQL(port, str(directory), user)
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


@contextlib.contextmanager
def run_redis() -> Iterator[Redis]:
    """A Redis of Debian's package, keeping nothing on disk.

    Raises `FileNotFoundError` where it is not installed.
    """
    program = find("redis-server")
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
