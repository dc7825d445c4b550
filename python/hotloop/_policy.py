"""How a program comes by a loop: by asking for one, by ``run``, or by a policy.

The functions have asyncio's names and drive a policy of hotloop's own, so they need no ``install()`` and work on where
asyncio's are deprecated. The interfaces are asyncio's, as long as that has them: either's policies can be given to the
other.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import warnings
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from ._loop import EventLoop, ProactorEventLoop, SelectorEventLoop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = [
    "AbstractEventLoopPolicy",
    "DefaultEventLoopPolicy",
    "EventLoopPolicy",
    "get_event_loop",
    "get_event_loop_policy",
    "get_running_loop",
    "install",
    "new_event_loop",
    "run",
    "set_event_loop",
    "set_event_loop_policy",
    "uninstall",
]

_T = TypeVar("_T")


# The environment variable that chooses where a program does not.
_VARIABLE = "HOTLOOP_LOOP"

_WORDS = ("selector", "proactor", "auto")


def new_event_loop(driver: Literal["selector", "proactor", "auto"] | None = None) -> EventLoop:
    """Make a loop. It is not set as the current one. Without an argument the policy makes it.

    :param driver: "selector" for a ``SelectorEventLoop``, "proactor" for a ``ProactorEventLoop``, "auto" for a proactor
        where the kernel has all that makes it the faster one and lets this process use it, else a selector, without a
        word. ``None`` leaves the choice to the environment variable ``HOTLOOP_LOOP``, which takes the same words;
        where that is not set either, or empty, it is "selector", as on asyncio. ``loop.driver`` says what came of it.
    :raises ValueError: if the argument, or the variable, is another word.
    :raises OSError: if the kernel refuses what was asked for, or no descriptor is left.
    """
    if driver is None and _policy is not None and not _asking.policy:
        _asking.policy = True
        try:
            # Whoever sets a policy knows what it makes.
            return cast("EventLoop", _policy.new_event_loop())
        finally:
            _asking.policy = False
    return _make_loop(driver)


def _make_loop(driver: str | None) -> EventLoop:
    """Make the loop that the argument says, or else the environment."""
    if driver is None:
        word, source = os.environ.get(_VARIABLE) or "selector", _VARIABLE
    else:
        word, source = driver, "driver"
    if word == "selector":
        return SelectorEventLoop()
    if word == "proactor":
        return ProactorEventLoop()
    if word != "auto":
        raise ValueError(f"{source} must be one of {', '.join(map(repr, _WORDS))}, not {word!r}")
    try:
        return ProactorEventLoop()
    except OSError:
        # The attempt is the probe: one system call where io_uring is refused.
        return SelectorEventLoop()


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], AbstractEventLoop] | None = None,
) -> _T:
    """Run a coroutine on a new loop, as ``asyncio.run`` does, and answer its result.

    :param main: the coroutine.
    :param debug: whether the loop runs in debug mode; ``None`` leaves that to the environment.
    :param loop_factory: what makes the loop; ``None`` is ``new_event_loop``.
    :raises RuntimeError: if a loop is running in this thread already.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory or new_event_loop) as runner:
        return runner.run(main)


# Since 3.14 their public names are deprecated. Whoever uses these hears of it from asyncio when he gives it a policy.
# That warning is not made and filtered out: CPython would keep the filters of this moment, and go by them at its end.
if sys.version_info >= (3, 14):
    from asyncio.events import _AbstractEventLoopPolicy as AbstractEventLoopPolicy
    from asyncio.unix_events import _DefaultEventLoopPolicy as _Base
else:
    from asyncio import AbstractEventLoopPolicy
    from asyncio import DefaultEventLoopPolicy as _Base

# Where the warning of a loop that was made unasked does not point to.
_NOT_THE_CALLER = (os.path.dirname(__file__), os.path.dirname(asyncio.__file__))


class DefaultEventLoopPolicy(_Base):
    """A policy whose loops are hotloop's; in everything else asyncio's default one.

    A thread has one loop. ``get_event_loop`` raises ``RuntimeError`` where none is set, but that it makes one for the
    main thread before Python 3.14, as asyncio does there (from 3.12 on with a ``DeprecationWarning``).
    """

    def new_event_loop(self) -> EventLoop:
        """Make a loop. It is not set as the current one."""
        return _make_loop(None)

    if not TYPE_CHECKING and (3, 12) <= sys.version_info < (3, 14):

        def get_event_loop(self) -> AbstractEventLoop:
            local = self._local
            is_main = threading.current_thread() is threading.main_thread()
            if local._loop is None and not local._set_called and is_main:
                # asyncio's own words, said of whoever has called us.
                warnings.warn("There is no current event loop", DeprecationWarning, skip_file_prefixes=_NOT_THE_CALLER)
                self.set_event_loop(self.new_event_loop())
            return super().get_event_loop()


EventLoopPolicy = DefaultEventLoopPolicy


class _Asking(threading.local):
    """Whether this thread is asking the policy for a new loop, which may ask ``new_event_loop`` in its turn."""

    policy = False


_asking = _Asking()

# The policy that was set or asked for, if one was.
_policy: AbstractEventLoopPolicy | None = None
_lock = threading.Lock()


def get_event_loop_policy() -> AbstractEventLoopPolicy:
    """Answer hotloop's policy: the one that was set, else a ``DefaultEventLoopPolicy``."""
    global _policy
    with _lock:
        if _policy is None:
            _policy = DefaultEventLoopPolicy()
        return _policy


def set_event_loop_policy(policy: AbstractEventLoopPolicy | None) -> None:
    """Set hotloop's policy; ``None`` restores the default. asyncio's stays what it is, see ``install``.

    :raises TypeError: if it is no policy.
    """
    global _policy
    if policy is not None and not isinstance(policy, AbstractEventLoopPolicy):
        raise TypeError(f"policy must be an instance of AbstractEventLoopPolicy or None, not '{type(policy).__name__}'")
    with _lock:
        _policy = policy


def get_event_loop() -> AbstractEventLoop:
    """Answer the running loop, else the one that hotloop's policy has for this thread.

    :raises RuntimeError: where there is none.
    """
    running = asyncio._get_running_loop()
    return running if running is not None else get_event_loop_policy().get_event_loop()


def set_event_loop(loop: AbstractEventLoop | None) -> None:
    """Set the loop that hotloop's policy has for this thread; ``None``: there is none.

    :raises TypeError: if it is no loop.
    """
    get_event_loop_policy().set_event_loop(loop)


def install() -> None:
    """Make hotloop's policy asyncio's, so that ``asyncio.run`` and the like run on hotloop.

    Prefer ``hotloop.run(...)`` or a ``loop_factory``: policies leave asyncio in Python 3.16.
    """
    _set_policy(get_event_loop_policy())


def uninstall() -> None:
    """Restore asyncio's default policy."""
    _set_policy(None)


def _set_policy(policy: Any) -> None:
    if sys.version_info < (3, 14):
        asyncio.set_event_loop_policy(policy)
    else:  # the same without its warning
        asyncio.events._set_event_loop_policy(policy)
