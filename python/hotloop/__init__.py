"""asyncio's event loop, implemented in Rust.

One line switches a program over, and everything else stays: the same tasks, protocols, exceptions and order of
callbacks.

    hotloop.run(main())                                            # in place of asyncio.run(main())
    asyncio.run(main(), loop_factory=hotloop.new_event_loop)       # Python 3.12 and later

Importing this package changes nothing.
"""

from ._hotloop import __version__
from ._loop import EventLoop as Loop
from ._loop import ProactorEventLoop, SelectorEventLoop
from ._policy import (
    AbstractEventLoopPolicy,
    DefaultEventLoopPolicy,
    EventLoopPolicy,
    get_event_loop,
    get_event_loop_policy,
    get_running_loop,
    install,
    new_event_loop,
    run,
    set_event_loop,
    set_event_loop_policy,
    uninstall,
)

__all__ = [
    "AbstractEventLoopPolicy",
    "DefaultEventLoopPolicy",
    "EventLoopPolicy",
    "Loop",
    "ProactorEventLoop",
    "SelectorEventLoop",
    "__version__",
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
