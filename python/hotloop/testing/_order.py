"""What sets hold, in an order that is the same each time.

asyncio keeps tasks, transports and asynchronous generators in sets, and goes through them when it cancels or closes
all. The order of a set is that of hashes, and the hash of such an object is where it lies in memory. Here it is its
number.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ._loop import EventLoop

__all__ = ["OrderedWeakSet", "SimulatedFuture", "SimulatedTask"]

_T = TypeVar("_T")


class SimulatedFuture(asyncio.Future[_T]):
    """A future whose hash is its number in its loop."""

    def __init__(self, loop: EventLoop) -> None:
        self._number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class SimulatedTask(asyncio.Task[_T]):
    """A task whose hash is its number in its loop, and so is its name, unless it is given one."""

    def __init__(self, coro: Any, *, loop: EventLoop, name: Any = None, **given: Any) -> None:
        self._number = loop.next_number()
        name = f"Task-{self._number}" if name is None else name
        super().__init__(coro, loop=loop, name=name, **given)

    def __hash__(self) -> int:
        return self._number


class OrderedWeakSet:
    """As much of a ``weakref.WeakSet`` as a loop needs, in the order in which things came in."""

    def __init__(self) -> None:
        self._items: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def add(self, item: object) -> None:
        """Keep a thing, weakly."""
        self._items[item] = None

    def discard(self, item: object) -> None:
        """Forget a thing."""
        self._items.pop(item, None)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items))
