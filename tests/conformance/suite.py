"""The running interpreter's own `test.test_asyncio`: found, never copied."""

from __future__ import annotations

import importlib
import pkgutil
import unittest
from collections.abc import Iterator

import fixtures

PACKAGE = "test.test_asyncio"


def modules() -> list[str]:
    """The names of the suite's test modules, without the package.

    Raises `ModuleNotFoundError` where the interpreter is installed without its tests.
    """
    package = importlib.import_module(PACKAGE)
    return sorted(name for _, name, _ in pkgutil.iter_modules(package.__path__) if name.startswith("test_"))


def load(module: str) -> dict[str, unittest.TestCase] | str:
    """The tests of `module` by their id, or why the module skips itself."""
    try:
        imported = importlib.import_module(f"{PACKAGE}.{module}")
    except unittest.SkipTest as reason:
        return str(reason)
    fixtures.adapt(imported)
    suite = unittest.defaultTestLoader.loadTestsFromModule(imported)
    return {test.id().removeprefix(f"{PACKAGE}."): test for test in _flatten(suite)}


def _flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flatten(test)
        else:
            yield test
