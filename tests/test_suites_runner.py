"""The runner of libraries' suites itself: does it notice what it is there to notice?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUNNER = Path(__file__).parent / "suites"

SUITE = """
import asyncio, subprocess, sys
import pytest

async def rest():
    await asyncio.sleep(0.001)

def test_first():
    assert True

def test_loop():
    asyncio.run(rest())

def test_process():
    subprocess.run([sys.executable, "-c", "import asyncio; asyncio.run(asyncio.sleep(0))"], check=True)

def test_wrong():
    assert False, "as ever"

@pytest.mark.skip(reason="for a reason")
def test_skipped():
    pass

def test_last():
    asyncio.new_event_loop().close()
"""

LOOPS = """
import asyncio, os

class Good(asyncio.SelectorEventLoop):
    pass

class Fails(asyncio.SelectorEventLoop):
    def call_later(self, delay, callback, *args, context=None):
        raise ZeroDivisionError

class Crashes(asyncio.SelectorEventLoop):
    def call_later(self, delay, callback, *args, context=None):
        os.abort()

class FailsOnce(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        try:
            open(os.environ["FAILED_ONCE"], "x").close()
        except FileExistsError:
            return super().call_later(*args, **kwargs)
        raise ZeroDivisionError

class Escapes(asyncio.SelectorEventLoop):
    def call_later(self, *args, **kwargs):
        asyncio.SelectorEventLoop.__mro__[1]().close()
        return super().call_later(*args, **kwargs)

class CrashesAtExit(asyncio.SelectorEventLoop):
    def close(self):
        import atexit
        super().close()
        atexit.register(os.abort)
"""

DRIVER = """
import importlib.util, sys
from pathlib import Path

runner, here, *arguments = sys.argv[1:]
sys.path.insert(0, runner)
specification = importlib.util.spec_from_file_location("suites_main", Path(runner, "__main__.py"))
main = importlib.util.module_from_spec(specification)
specification.loader.exec_module(main)
# Neither a package index nor an environment: this interpreter, and the tests that lie there.
made = main.environment.Environment(Path(here), Path(here, "tests"), Path(sys.executable))
main.environment.prepare = lambda library, target: made
sys.exit(main.main(arguments))
"""


class Bench:
    """A library with a suite, and the runner."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "tests").mkdir()
        (directory / "tests" / "pytest.ini").write_text("[pytest]\n")
        (directory / "registry").mkdir()
        self.suite(SUITE)
        (directory / "broken_loops.py").write_text(LOOPS)
        (directory / "driver.py").write_text(DRIVER)
        for registry in ("divergence", "left_out", "not_run"):
            self.register(registry)
        (directory / "libraries.toml").write_text(
            '[sample]\nversion = "1"\nrequirements = []\ntake = []\n'
            # Other plugins are of no use to it, and take longer to load than its tests to run.
            'environment = { PYTEST_DISABLE_PLUGIN_AUTOLOAD = "1" }\narguments = ["-p", "pytest_timeout", "test_sample.py"]\n'
        )

    def suite(self, source: str) -> None:
        """Has the library this test module."""
        (self.directory / "tests" / "test_sample.py").write_text(source)

    def register(self, registry: str, *tests: str) -> None:
        """Registers `tests`, and nothing else."""
        entry = f'[[entry]]\nlibrary = "sample"\ntests = {list(tests)!r}\nreason = "for a reason"\n'
        (self.directory / "registry" / f"{registry}.toml").write_text(entry if tests else "")

    def run(self, loop: str, *arguments: str) -> tuple[int, dict[str, Any], list[str]]:
        """The runner's exit status, what it says of each test, and its lines."""
        command = [sys.executable, str(self.directory / "driver.py"), str(RUNNER), str(self.directory), "--loop", loop]
        command += ["--libraries", str(self.directory / "libraries.toml")]
        command += ["--registry", str(self.directory / "registry"), "--target", str(self.directory), *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(self.directory)}
        )
        part = "-part" if "--tests" in arguments else ""
        result = self.directory / f"sample-{loop.replace(':', '.')}{part}.json"
        tests = json.loads(result.read_text())["tests"] if result.exists() else {}
        return (
            done.returncode,
            {test.rpartition("::")[2]: found for test, found in tests.items()},
            done.stdout.splitlines(),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def verdicts(tests: dict[str, Any]) -> dict[str, str]:
    return {test: found["verdict"] for test, found in tests.items()}


AS_ON_STOCK = {
    "test_first": "passed",
    "test_loop": "passed",
    "test_process": "passed",
    "test_wrong": "stock",
    "test_skipped": "skipped",
    "test_last": "passed",
}


def test_a_loop_like_stock_asyncio_does_no_worse(bench: Bench) -> None:
    status, tests, lines = bench.run("broken_loops:Good")
    assert (status, verdicts(tests)) == (0, AS_ON_STOCK)
    assert [test for test, found in tests.items() if found["result"]["loops"]] == ["test_last", "test_loop"]
    assert any("broken_loops.Good in 2" in line for line in lines), "the process that a test spawned has the loop too"
    assert lines[-1] == "4 passed, 0 failed, 2 skipped"


def test_hotloop_is_the_loop(bench: Bench) -> None:
    status, tests, lines = bench.run("hotloop")
    assert (status, verdicts(tests)) == (0, AS_ON_STOCK)
    assert any("processes: hotloop._loop.SelectorEventLoop in 2" in line for line in lines)


@pytest.mark.parametrize(("loop", "outcome"), [("Fails", "failed"), ("Crashes", "crashed")])
def test_what_only_fails_here_is_a_failure(bench: Bench, loop: str, outcome: str) -> None:
    status, tests, lines = bench.run(f"broken_loops:{loop}")
    assert status == 1
    assert verdicts(tests) == AS_ON_STOCK | {"test_loop": "failed"}, "what comes after it is run, and the process too"
    assert tests["test_loop"]["result"]["outcome"] == outcome
    assert lines[-1] == "3 passed, 1 failed, 2 skipped"


def test_what_passes_alone_is_unsteady(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAILED_ONCE", str(tmp_path / "failed-once"))
    status, tests, lines = bench.run("broken_loops:FailsOnce")
    assert (status, verdicts(tests)) == (0, AS_ON_STOCK | {"test_loop": "unsteady"})
    assert "unsteady: test_sample.py::test_loop" in lines
    assert "ZeroDivisionError" in tests["test_loop"]["reason"]


def test_a_stock_loop_beside_the_tested_one_is_a_failure(bench: Bench) -> None:
    bench.suite("import asyncio\nLOOP = asyncio.SelectorEventLoop.__mro__[1]\ndef test_one():\n    LOOP().close()\n")
    status, tests, _ = bench.run("broken_loops:Good")
    assert status == 1
    assert verdicts(tests) == {"test_one": "passed", "(loops)": "failed", "(stock loops)": "failed"}


def test_a_suite_without_the_loop_is_a_failure(bench: Bench) -> None:
    bench.suite("def test_one():\n    pass\n")
    status, tests, _ = bench.run("broken_loops:Good")
    assert (status, verdicts(tests)) == (1, {"test_one": "passed", "(loops)": "failed"})


def test_a_crash_after_the_last_test_is_a_failure(bench: Bench) -> None:
    bench.suite("import asyncio\ndef test_one():\n    asyncio.new_event_loop().close()\n")
    status, tests, _ = bench.run("broken_loops:CrashesAtExit")
    assert (status, verdicts(tests)) == (1, {"test_one": "passed", "(process)": "failed"})


def test_a_module_that_cannot_be_imported_fails_on_stock_too(bench: Bench) -> None:
    (bench.directory / "tests" / "test_sample.py").write_text(SUITE + "\nimport gone\n")
    (bench.directory / "tests" / "test_more.py").write_text(SUITE)
    libraries = bench.directory / "libraries.toml"
    libraries.write_text(libraries.read_text().replace('"test_sample.py"', '"."'))
    status, tests, _ = bench.run("broken_loops:Good")
    assert (status, verdicts(tests)) == (0, AS_ON_STOCK | {"test_sample.py (import)": "stock"})


@pytest.mark.parametrize(
    ("loop", "expected", "verdict"), [("Fails", 0, "divergence"), ("Good", 1, "failed")], ids=["fails", "passes"]
)
def test_a_known_divergence_must_fail(bench: Bench, loop: str, expected: int, verdict: str) -> None:
    bench.register("divergence", "*::test_loop")
    status, tests, _ = bench.run(f"broken_loops:{loop}")
    assert (status, verdicts(tests)) == (expected, AS_ON_STOCK | {"test_loop": verdict})


def test_what_is_left_out_does_not_run(bench: Bench) -> None:
    bench.register("left_out", "*::test_wrong", "*::test_l*")
    status, tests, lines = bench.run("broken_loops:Good")
    out = dict.fromkeys(("test_wrong", "test_loop", "test_last"), "left out")
    assert (status, verdicts(tests)) == (0, AS_ON_STOCK | out)
    assert lines[-1] == "2 passed, 0 failed, 4 skipped"


@pytest.mark.parametrize(("registry", "tests"), [("divergence", ["*::gone"]), ("left_out", ["*::gone"])])
def test_an_entry_that_matches_nothing_is_a_failure(bench: Bench, registry: str, tests: list[str]) -> None:
    bench.register(registry, *tests)
    status, _, lines = bench.run("broken_loops:Good")
    assert status == 1
    assert "    no test matches '*::gone'" in lines


def test_some_tests_only(bench: Bench) -> None:
    bench.register("left_out", "*::test_first")
    bench.register("divergence", "*::test_wrong")
    status, tests, lines = bench.run("broken_loops:Good", "--tests", "*::test_l*")
    assert (status, verdicts(tests)) == (0, {"test_loop": "passed", "test_last": "passed"})
    assert lines[-1] == "2 passed, 0 failed, 0 skipped"


def test_the_page_has_the_registries_as_they_are() -> None:
    script = "import page; assert page.PAGE.read_text().endswith(page.registries()), page.__doc__"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(RUNNER)})
