"""The registries: which of CPython's tests are not expected to pass here, and why.

A registry is a TOML file of `[[entry]]` tables:

- `tests`: patterns (`*`, `?`, `[...]`) of test ids, which are `module.Class.method` without `test.test_asyncio.`
- `reason`: one or two sentences
- `evidence` (white-box only): pieces of the test's source, one of which must occur in each test matched, its fixtures
  or its helpers; the entry goes stale, and the run fails, when CPython's test no longer has any
- `python` (optional): where the entry applies, as in `">=3.12,<3.14"`
- `loops` (optional): the loop classes it applies to, as the runner's `--loop` names them
- `may_be_absent` (optional): whether some patch releases lack the tests

Every other entry must match a test of the running interpreter, and no test may be in two entries.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
import sys
import tomllib
import unittest
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "registry"


@dataclass(frozen=True)
class Entry:
    """One reason and the tests it holds for."""

    registry: str
    tests: tuple[str, ...]
    reason: str
    evidence: tuple[str, ...] = ()
    may_be_absent: bool = False


class RegistryError(Exception):
    """A registry that does not fit the running interpreter's tests; the message lists each misfit on a line."""


def load(registry: str, loop: str, directory: Path = DIRECTORY) -> list[Entry]:
    """The entries of `registry` (a file name without `.toml`) that apply to the running Python and to `loop`.

    Raises `RegistryError` where an entry lacks a field or has an unknown one.
    """
    with open(directory / f"{registry}.toml", "rb") as file:
        tables = tomllib.load(file).get("entry", [])
    return [_entry(registry, table) for table in tables if _applies(table, loop)]


def assign(entries: Iterable[Entry], tests: Mapping[str, unittest.TestCase]) -> dict[str, Entry]:
    """Which entry holds for which test id.

    Raises `RegistryError` where a pattern matches no test, two entries claim one test, or an entry's evidence is gone.
    """
    assigned: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        for pattern in entry.tests:
            matched = fnmatch.filter(tests, pattern)
            if not matched and not entry.may_be_absent:
                problems.append(f"{entry.registry}: no test matches {pattern!r}")
            for test_id in matched:
                if assigned.setdefault(test_id, entry) is not entry:
                    problems.append(f"{entry.registry}: {test_id} is registered twice")
                elif entry.evidence and not any(piece in source(tests[test_id]) for piece in entry.evidence):
                    problems.append(f"{entry.registry}: {test_id} has none of {list(entry.evidence)} in its source")
    if problems:
        raise RegistryError("\n".join(problems))
    return assigned


def source(test: unittest.TestCase) -> str:
    """The source of a test's method and of whatever it shares with the other tests of its class (fixtures, helpers)."""
    method = test.id().rpartition(".")[2]
    pieces = []
    for cls in type(test).__mro__:
        if cls.__module__.startswith("unittest") or cls is object:
            continue
        for name, member in vars(cls).items():
            if name == method or not name.startswith("test"):
                function = inspect.unwrap(getattr(member, "__func__", member))
                if inspect.isfunction(function) or inspect.isclass(function):
                    pieces.append(inspect.getsource(function))
    return "\n".join(pieces)


def _entry(registry: str, table: dict[str, Any]) -> Entry:
    fields = {"tests", "reason"} | ({"evidence"} if registry == "white_box" else set())
    if missing := fields - table.keys():
        raise RegistryError(f"{registry}: {table.get('tests')} lacks {sorted(missing)}")
    if unknown := table.keys() - fields - {"python", "loops", "may_be_absent"}:
        raise RegistryError(f"{registry}: {table['tests']} has unknown fields {sorted(unknown)}")
    evidence = tuple(table.get("evidence", ()))
    return Entry(registry, tuple(table["tests"]), table["reason"], evidence, table.get("may_be_absent", False))


def _applies(table: dict[str, Any], loop: str) -> bool:
    return loop in table.get("loops", [loop]) and python_matches(table.get("python", ""))


def python_matches(specifier: str, version: tuple[int, int] = sys.version_info[:2]) -> bool:
    """Whether `version` is in `specifier`, such as `">=3.12,<3.14"`; the empty one holds always."""
    operators = {
        ">=": version.__ge__,
        "<=": version.__le__,
        "==": version.__eq__,
        "<": version.__lt__,
        ">": version.__gt__,
    }
    for clause in filter(None, specifier.split(",")):
        match = re.fullmatch(r"\s*(>=|<=|==|<|>)\s*3\.(\d+)\s*", clause)
        if match is None:
            raise RegistryError(f"not a version specifier: {specifier!r}")
        if not operators[match[1]]((3, int(match[2]))):
            return False
    return True
