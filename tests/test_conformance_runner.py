"""The conformance runner itself: does it notice what it is there to notice?"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

RUNNER = Path(__file__).parent / "conformance"
HAS_SUITE = importlib.util.find_spec("test.test_asyncio") is not None
needs_suite = pytest.mark.skipif(not HAS_SUITE, reason="this interpreter is installed without its own tests")

BROKEN_LOOPS = """
import asyncio, os, time

class Fails(asyncio.SelectorEventLoop):
    def call_later(self, delay, callback, *args, context=None):
        raise ZeroDivisionError

class Crashes(asyncio.SelectorEventLoop):
    def call_later(self, delay, callback, *args, context=None):
        os.abort()

class Hangs(asyncio.SelectorEventLoop):
    def call_later(self, delay, callback, *args, context=None):
        while True:
            pass

class Escapes(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        type(self).__mro__[1]().close()
        return super().call_later(*args, **kwargs)

class FailsOnce(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        try:
            open(os.environ["FAILED_ONCE"], "x").close()
        except FileExistsError:
            return super().call_later(*args, **kwargs)
        raise ZeroDivisionError

class CrashesAtExit(asyncio.SelectorEventLoop):
    def close(self):
        import atexit
        super().close()
        atexit.register(os.abort)
"""

CALL_LATER = "test_events.SelectEventLoopTests.test_call_later"


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], list[str]]:
    """Runs the runner; its exit status, results by test id and printed lines."""
    (tmp_path / "broken_loops.py").write_text(BROKEN_LOOPS)
    output = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, str(RUNNER), "--json", str(output), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    return done.returncode, json.loads(output.read_text())["tests"], done.stdout.splitlines()


@needs_suite
def test_passing_test_that_met_the_loop(tmp_path: Path) -> None:
    status, tests, lines = run(tmp_path, "--loop=asyncio", CALL_LATER)
    assert status == 0
    assert tests[CALL_LATER]["verdict"] == "passed"
    assert tests[CALL_LATER]["result"]["tested_loops"] == 1
    assert lines[-1] == "1 passed, 0 failed, 0 skipped"


@needs_suite
@pytest.mark.parametrize(
    ("loop", "outcome"),
    [
        ("Fails", "failed"),
        ("Crashes", "crashed"),
        ("CrashesAtExit", "crashed"),
        ("Hangs", "timeout"),
        ("Escapes", "escaped"),
    ],
)
def test_broken_loop_is_noticed(tmp_path: Path, loop: str, outcome: str) -> None:
    # The limit is what the one hanging loop takes; the control in the same run has it too and must not need it.
    limit = ["--timeout=5"] if outcome == "timeout" else []
    status, tests, lines = run(tmp_path, f"--loop=broken_loops:{loop}", *limit, CALL_LATER)
    assert status == 1
    assert tests[CALL_LATER]["verdict"] == "failed"
    assert tests[CALL_LATER]["result"]["outcome"] == outcome
    assert tests[CALL_LATER]["reason"].startswith(f"{outcome}: ")
    assert lines[-1] == "0 passed, 1 failed, 0 skipped"


@needs_suite
@pytest.mark.parametrize(("options", "expected"), [([], 0), (["--strict"], 1)])
def test_what_passes_alone_is_told_and_no_failure_unless_it_shall_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: int
) -> None:
    monkeypatch.setenv("FAILED_ONCE", str(tmp_path / "failed-once"))
    status, tests, lines = run(tmp_path, "--loop=broken_loops:FailsOnce", *options, CALL_LATER)
    assert status == expected
    assert tests[CALL_LATER]["verdict"] == "unsteady"
    assert "ZeroDivisionError" in tests[CALL_LATER]["reason"]
    assert f"unsteady: {CALL_LATER} failed beside others, and passed alone" in lines


@needs_suite
def test_reason_of_a_skip_is_kept(tmp_path: Path) -> None:
    test_id = "test_subprocess.SubprocessTransportTests.test_subprocess_repr"
    (tmp_path / "sitecustomize.py").write_text(
        "import unittest\nimport test.test_asyncio.test_subprocess as module\n"
        "cls = module.SubprocessTransportTests\n"
        "cls.test_subprocess_repr = unittest.skip('for a reason')(cls.test_subprocess_repr)\n"
    )
    status, tests, lines = run(tmp_path, "--loop=asyncio", test_id)
    assert status == 0
    assert tests[test_id]["verdict"] == "skipped"
    assert tests[test_id]["reason"] == "for a reason"
    assert lines[-1] == "0 passed, 0 failed, 1 skipped"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the runner."""
    monkeypatch.syspath_prepend(str(RUNNER))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__ or "").parent == RUNNER:
            del sys.modules[name]


class Sample(unittest.TestCase):
    def setUp(self) -> None:
        self.inside = "_private_attribute"

    def test_one(self) -> None:
        assert self.inside

    def test_two(self) -> None:
        assert "another_piece"


SAMPLES: dict[str, unittest.TestCase] = {
    "m.Sample.test_one": Sample("test_one"),
    "m.Sample.test_two": Sample("test_two"),
}


def test_entry_holds_for_the_tests_it_matches(runner: Any) -> None:
    registry = runner("registry")
    entry = registry.Entry("white_box", ("m.Sample.*",), "why", ("_private_attribute",))
    assert registry.assign([entry], SAMPLES) == dict.fromkeys(SAMPLES, entry)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("gone.*", "")], "no test matches 'gone.*'"),
        ([("m.*", ""), ("m.Sample.test_one", "")], "m.Sample.test_one is registered twice"),
        ([("m.Sample.test_one", "another_piece")], "has none of ['another_piece'] in its source"),
    ],
)
def test_misfit_entry_is_refused(runner: Any, entries: list[tuple[str, str]], problem: str) -> None:
    registry = runner("registry")
    made = [registry.Entry("white_box", (pattern,), "why", (piece,) if piece else ()) for pattern, piece in entries]
    with pytest.raises(registry.RegistryError) as raised:
        registry.assign(made, SAMPLES)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("specifier", "expected"),
    [("", True), (">=3.12", True), (">=3.12,<3.14", True), ("<3.12", False), ("==3.13", True), (">3.13", False)],
)
def test_python_specifier(runner: Any, specifier: str, expected: bool) -> None:
    assert runner("registry").python_matches(specifier, (3, 13)) is expected


def test_malformed_specifier_is_refused(runner: Any) -> None:
    registry = runner("registry")
    with pytest.raises(registry.RegistryError):
        registry.python_matches("3.13")


@pytest.mark.parametrize(
    ("registered", "outcome", "on_stock", "verdict"),
    [
        (None, "passed", None, "passed"),
        (None, "skipped", None, "skipped"),
        (None, "failed", "passed", "failed"),
        (None, "failed", "failed", "failed"),
        ("divergence", "failed", "passed", "divergence"),
        ("divergence", "passed", None, "failed"),
        ("environment", "failed", "failed", "environment"),
        ("environment", "failed", "passed", "failed"),
        ("environment", "passed", None, "passed"),
    ],
)
def test_verdict(runner: Any, registered: str | None, outcome: str, on_stock: str | None, verdict: str) -> None:
    report, pool, registry = runner("report"), runner("pool"), runner("registry")
    entry = registry.Entry(registered, ("m.*",), "why") if registered else None
    control = pool.Result(on_stock, "") if on_stock else None
    assert report.judge(pool.Result(outcome, "detail"), entry, control).verdict == verdict


def test_the_page_has_the_registries_as_they_are(runner: Any) -> None:
    page = runner("page")
    assert page.PAGE.read_text().endswith(page.registries()), "python tests/conformance/page.py writes it anew"
