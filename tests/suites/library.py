"""Which libraries there are, and what each of them needs: `libraries.toml` and the registries, read."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry import python_matches

HERE = Path(__file__).parent

FIELDS = {
    "divergence": {"library", "tests", "reason"},
    "left_out": {"library", "tests", "reason"},
    "not_run": {"library", "reason"},
}
"""What an entry of each registry must say; `loops` and `python` limit where it applies."""


@dataclass(frozen=True)
class Library:
    """A library whose suite is run."""

    name: str
    version: str
    requirements: tuple[str, ...]
    """What its tests need beside it."""
    take: tuple[str, ...]
    """Patterns of the files of the source package that are unpacked."""
    arguments: tuple[str, ...]
    """What pytest is called with."""
    package: str = ""
    """The name of its package."""
    source: str = ""
    """The package that has the tests, if it is another one."""
    timeout: float = 60
    """Seconds for one test."""
    limit: float = 1200
    """Seconds for the suite on one loop."""
    environment: dict[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One reason and the tests it holds for."""

    tests: tuple[str, ...]
    """Patterns (`*`, `?`, `[...]`) of test ids, which are pytest's."""
    reason: str


class SuiteError(Exception):
    """A library, an entry or an environment that cannot be used; the message says why."""


def libraries(path: Path = HERE / "libraries.toml") -> dict[str, Library]:
    """The libraries, in order, by name."""
    with open(path, "rb") as file:
        tables = tomllib.load(file)
    return {name: _library(name, table) for name, table in tables.items()}


def entries(registry: str, library: str, loop: str, directory: Path = HERE / "registry") -> list[Entry]:
    """The entries of a registry that apply to a library, to a loop (as `--loop` names it) and to the running Python."""
    return [
        Entry(tuple(table["tests"]), table["reason"])
        for table in tables(registry, directory)
        if table["library"] == library
        and loop in table.get("loops", [loop])
        and python_matches(table.get("python", ""))
    ]


def tables(registry: str, directory: Path = HERE / "registry") -> list[dict[str, Any]]:
    """The entries of a registry as they stand in its file.

    Raises `SuiteError` where one lacks a field or has an unknown one.
    """
    with open(directory / f"{registry}.toml", "rb") as file:
        found: list[dict[str, Any]] = tomllib.load(file).get("entry", [])
    for table in found:
        if missing := FIELDS[registry] - table.keys():
            raise SuiteError(f"{registry}: {table} lacks {sorted(missing)}")
        if unknown := table.keys() - FIELDS[registry] - {"loops", "python"}:
            raise SuiteError(f"{registry}: {table} has unknown fields {sorted(unknown)}")
    return found


def _library(name: str, table: dict[str, Any]) -> Library:
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return Library(**{"name": name, "package": name} | fields)
    except TypeError as problem:
        raise SuiteError(f"libraries.toml: {name}: {problem}") from None
