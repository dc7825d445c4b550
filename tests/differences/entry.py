"""What the page consists of: sections of entries, and the probes that measure them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from harness import Loop

#: The loops, by the harness's names, as the page's tables have them.
LOOPS = ("asyncio", "selector", "proactor")

#: The minor versions of Python 3 that hotloop is for.
VERSIONS = (11, 12, 13, 14, 15)

#: What is observed where a probe's process crashes; also the answer of a probe to what might as well have crashed it.
CRASHED = "goes wrong"


@dataclass(frozen=True)
class Probe:
    """A small program that answers what is observed on a loop.

    It runs in a process of its own, on a loop made for it, and may leave both as it likes. What it answers depends on
    the loop and on the version of Python, on nothing else: not on time, nor on the machine.
    """

    measure: Callable[[Loop], object]
    #: What the page's table says of it.
    shows: str
    #: The minor versions of Python on which the loops answer differently.
    versions: range
    #: Whether it is measured on the other versions too, on which they answer the same.
    elsewhere: bool
    #: The loops that it is for.
    loops: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the records call it: the name of its function."""
        return self.measure.__name__


def probe(
    shows: str,
    *,
    since: int = VERSIONS[0],
    until: int = VERSIONS[-1],
    elsewhere: bool = True,
    loops: tuple[str, ...] = LOOPS,
) -> Callable[[Callable[[Loop], object]], Probe]:
    """Make a probe of a function: what it shows, and on which minor versions and loops; `Probe` says more."""
    return lambda measure: Probe(measure, shows, range(since, until + 1), elsewhere, loops)


@dataclass(frozen=True)
class Entry:
    """A difference: what it is and why, and what shows it, of which there is something."""

    prose: str
    #: `test_file.py::test_function`
    tests: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()

    def __init__(self, prose: str, *shown: str | Probe) -> None:
        object.__setattr__(self, "prose", textwrap.dedent(prose).strip())
        object.__setattr__(self, "tests", tuple(item for item in shown if isinstance(item, str)))
        object.__setattr__(self, "probes", tuple(item for item in shown if isinstance(item, Probe)))


@dataclass(frozen=True)
class Section:
    """A heading with entries, among them text that is no difference."""

    title: str
    content: tuple[Entry | str, ...]
    #: That of its heading.
    level: int = 3

    def __init__(self, title: str, *content: Entry | str, level: int = 3) -> None:
        object.__setattr__(self, "title", title)
        object.__setattr__(
            self, "content", tuple(textwrap.dedent(item).strip() if isinstance(item, str) else item for item in content)
        )
        object.__setattr__(self, "level", level)

    @property
    def entries(self) -> list[Entry]:
        """Its differences."""
        return [item for item in self.content if isinstance(item, Entry)]
