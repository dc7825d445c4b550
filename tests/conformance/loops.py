"""Which loop the suite runs on: puts the loop under test where asyncio's own names lead, and counts the loops made.

CPython's tests make their loops by `asyncio.SelectorEventLoop(...)`, `asyncio.EventLoop`, `asyncio.new_event_loop()`,
`asyncio.run()` and `IsolatedAsyncioTestCase`. All of these end at two places: the names in the `asyncio` package and
the default policy's factory. Replacing both before a test module is imported (some keep `asyncio.EventLoop` in a class
attribute) runs the tests as they are, under their own ids.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import functools
import importlib
import inspect
from collections import Counter
from typing import Any

STOCK = asyncio.SelectorEventLoop
"""Stock asyncio's loop, kept before anything is replaced."""


class Census:
    """Counts the loops a test makes, so that a test that never met the loop under test is not taken for a proof."""

    def __init__(self, tested: type) -> None:
        self._tested = tested
        self._count: Counter[str] = Counter()
        self._stock = 0

    @property
    def tested(self) -> int:
        """Loops made of the class under test, or of a subclass."""
        return self._count[self._name(self._tested)]

    @property
    def escaped(self) -> bool:
        """Whether a plain stock loop was made although another loop is under test."""
        return self._stock > 0 and self._tested is not STOCK

    def as_dict(self) -> dict[str, int]:
        """Loops made, by class name; those of the class under test and its subclasses under the former's name."""
        return dict(self._count)

    def add(self, loop: Any) -> None:
        """Counts `loop`, which is being made."""
        if isinstance(loop, self._tested):
            self._count[self._name(self._tested)] += 1
        else:
            self._count[self._name(type(loop))] += 1
            self._stock += type(loop) is STOCK

    @staticmethod
    def _name(cls: type) -> str:
        return "asyncio.SelectorEventLoop" if cls is STOCK else f"{cls.__module__}.{cls.__qualname__}"


def resolve(name: str) -> type:
    """The loop class called `name`.

    `asyncio` and `hotloop` stand for their selector loops, `proactor` for hotloop's other one; anything else is
    `module:Class`. Raises `ImportError` or
    `AttributeError` where there is none.
    """
    if name == "asyncio":
        return STOCK
    module, _, attribute = ("hotloop:ProactorEventLoop" if name == "proactor" else name).partition(":")
    found = getattr(importlib.import_module(module), attribute or "SelectorEventLoop")
    if not isinstance(found, type):
        raise TypeError(f"{name} is not a class")
    return found


def install(tested: type, census_of: type[Census] = Census) -> Census:
    """Puts `tested` where the suite makes its loops and returns the count of loops made from now on."""
    census = census_of(tested)
    _count_made(asyncio.base_events.BaseEventLoop, census, unless=tested)
    tested = _count_made(tested, census)
    if tested is not STOCK:
        for module in (asyncio, asyncio.unix_events):
            for name in ("SelectorEventLoop", "EventLoop"):
                if hasattr(module, name):
                    setattr(module, name, tested)
        # Private, but the one place that `new_event_loop()` and the runners come to on every version, and no warning.
        _default_policy()._loop_factory = tested
    return census


def _default_policy() -> Any:
    for name in ("_DefaultEventLoopPolicy", "DefaultEventLoopPolicy"):
        if (policy := vars(asyncio.unix_events).get(name)) is not None:
            return policy
    raise RuntimeError("asyncio.unix_events has no default policy")


def _count_made(cls: Any, census: Census, unless: type | None = None) -> Any:
    """Has `census` count what `cls` makes; returns `cls`, or where it is immutable a subclass in its stead.

    Loops of the class `unless` are left alone: their own class counts them, whether or not they call up to `cls`.
    """
    original = cls.__init__
    takes_selector = len(inspect.signature(original).parameters) > 1

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if unless is None or not isinstance(self, unless):
            census.add(self)
        if takes_selector:
            original(self, *args, **kwargs)
        else:
            # The suite gives selectors to what it takes for a selector loop; a proactor has no use for them.
            for selector in (*args, *kwargs.values()):
                selector.close()
            original(self)

    try:
        cls.__init__ = __init__
    except TypeError:
        names = {"__init__": __init__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
        return type(cls.__name__, (cls,), names)
    return cls
