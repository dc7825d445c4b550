"""dask's distributed: a scheduler and a client on the loop of this process, and two workers in processes of their own."""

from __future__ import annotations

import asyncio
import logging
import warnings
from operator import add
from typing import Any

from chosen import answer, new_loop, package_of, run
from distributed import Client, LocalCluster

# distributed has no option for another factory. The processes of the workers import this module before they make loops.
with warnings.catch_warnings():
    # Policies are deprecated since Python 3.14.
    warnings.simplefilter("ignore", DeprecationWarning)

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return new_loop()

    asyncio.set_event_loop_policy(Policy())

# A heartbeat that meets the end of the cluster is an error in distributed's log, now and then on stock asyncio too.
logging.getLogger("distributed.worker").addFilter(lambda record: "during heartbeat" not in record.getMessage())


def square(number: int) -> int:
    return number * number


async def which() -> str:
    """The package of the loop of the worker that runs this."""
    return package_of(asyncio.get_running_loop())


async def main() -> None:
    said: dict[str, Any] = {"loop": package_of(asyncio.get_running_loop())}
    async with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            asynchronous=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
        ) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        said["workers"] = sorted((await client.run(which)).values())
        squares = client.map(square, range(200))
        said["sum"] = await client.submit(sum, squares)
        # From one worker to the other, by the connection that they make for it.
        first, second = cluster.scheduler.workers
        there = client.submit(bytes, 4 << 20, workers=first)
        said["bytes"] = await client.submit(len, there, workers=second)
        here = await client.scatter(b"scattered")
        said["scattered"] = (await client.submit(add, here, b", gathered")).decode()
    answer(said)


if __name__ == "__main__":
    run(main())
