"""What a suite is run with: its tests, from the library's source package, and an environment with the library."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from library import Library, SuiteError

CONFIGURATION = ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


@dataclass(frozen=True)
class Environment:
    """Where the suite of a library lies and what runs it."""

    directory: Path
    """Everything of this library: the two below, and what its runs leave behind."""
    tests: Path
    """The unpacked part of the source package; suites are run in it."""
    python: Path
    """The interpreter of its virtual environment."""


def prepare(library: Library, target: Path) -> Environment:
    """Fetches and installs what is not there yet, below `target`.

    Raises `SuiteError` where that fails.
    """
    directory = target.absolute() / library.name
    directory.mkdir(parents=True, exist_ok=True)
    environment = Environment(directory, directory / "tests", directory / "venv" / "bin" / "python")
    stamp = directory / "prepared"
    needs = (library.package, library.version, library.requirements, library.source, library.take, sys.version)
    wanted = hashlib.sha256(repr(needs).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        _install(library, environment)
        _unpack(_source(library, directory), library, environment.tests)
        stamp.write_text(wanted)
    _lend_hotloop(environment)
    return environment


def _install(library: Library, environment: Environment) -> None:
    shutil.rmtree(environment.directory / "venv", ignore_errors=True)
    _call(sys.executable, "-m", "venv", str(environment.directory / "venv"))
    pip = (str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _call(*pip, f"{library.package}=={library.version}", *library.requirements)


def _source(library: Library, directory: Path) -> Path:
    """The source package of `library`, as pip finds and fetches it."""
    shutil.rmtree(directory / "source", ignore_errors=True)
    package = library.source or library.package
    fetch = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
    _call(*fetch, "--no-binary", package, "--dest", str(directory / "source"), f"{package}=={library.version}")
    return next((directory / "source").iterdir())


def _unpack(source: Path, library: Library, tests: Path) -> None:
    shutil.rmtree(tests, ignore_errors=True)
    with tarfile.open(source) as archive:
        for member in archive.getmembers():
            _, _, path = member.name.partition("/")
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in library.take):
                member.name = path
                archive.extract(member, tests, filter="data")
    if not tests.exists():
        raise SuiteError(f"{source.name} has none of {', '.join(library.take)}")
    # Or pytest would look for its settings in the directories above, and find those of hotloop.
    if not any("pytest" in path.read_text() for name in CONFIGURATION if (path := tests / name).exists()):
        (tests / "pytest.ini").write_text("[pytest]\n")


def _lend_hotloop(environment: Environment) -> None:
    """Has the environment import the very package that this interpreter would, as it is built now."""
    specification = importlib.util.find_spec("hotloop")
    if specification is None or specification.origin is None:
        raise SuiteError("hotloop is not installed in this interpreter")
    package = Path(specification.origin).resolve().parent
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    link = environment.directory / "venv" / "lib" / version / "site-packages" / "hotloop"
    if not link.is_symlink() or os.readlink(link) != str(package):
        link.unlink(missing_ok=True)
        link.symlink_to(package)


def _call(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SuiteError(f"{' '.join(command)}:\n{done.stdout}")
