"""What must run beside a suite."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from library import SuiteError

sys.path.append(str(Path(__file__).parent.parent))


@contextlib.contextmanager
def serve(services: Collection[str]) -> Iterator[dict[str, str]]:
    """Runs `services` (`redis`, `postgresql`); what arguments and environment may name of them, as in `{redis_port}`.

    Raises `SuiteError` where one is not installed.
    """
    if not services:
        yield {}
        return
    from ecosystem.services import run_postgresql, run_redis

    found = {}
    with contextlib.ExitStack() as stack:
        try:
            if "redis" in services:
                found["redis_port"] = str(stack.enter_context(run_redis()).port)
            if "postgresql" in services:
                running = stack.enter_context(run_postgresql(user="postgres"))
                found |= {"postgresql_port": str(running.port), "postgresql_user": running.user}
        except FileNotFoundError as missing:
            raise SuiteError(f"{missing}: scripts/services.sh installs it as root") from None
        yield found
