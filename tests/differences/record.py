"""What was measured: in `recorded/`, for each Python a file that says which one, and what each probe observed by loop."""

from __future__ import annotations

import json
import platform
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from differences.entry import LOOPS

DIRECTORY = Path(__file__).parent / "recorded"

#: The minor version of the running Python.
RUNNING = sys.version_info.minor


@dataclass(frozen=True)
class Record:
    """What was measured on one Python."""

    #: Its whole version: what asyncio does may change from one patch release to the next.
    python: str
    #: By probe, by loop.
    outcomes: dict[str, dict[str, str]]


def load(version: int = RUNNING) -> Record:
    """What is on record of a minor version of Python, which may be nothing."""
    path = DIRECTORY / f"3.{version}.toml"
    return Record(**tomllib.loads(path.read_text())) if path.exists() else Record("", {})


def write(outcomes: dict[str, dict[str, str]]) -> None:
    """Record what was measured on the running Python, by loop, by probe.

    :raises ValueError: where a loop has not been measured.
    """
    if not all(outcomes.get(loop) for loop in LOOPS):
        raise ValueError("a record is of all loops")
    lines = ["# Written by `python tests/differences`.", f"python = {json.dumps(platform.python_version())}"]
    for name in outcomes["asyncio"]:
        lines += ["", f"[outcomes.{name}]"]
        lines += [f"{loop} = {json.dumps(outcomes[loop][name])}" for loop in LOOPS if name in outcomes[loop]]
    (DIRECTORY / f"3.{RUNNING}.toml").write_text("\n".join(lines) + "\n")
