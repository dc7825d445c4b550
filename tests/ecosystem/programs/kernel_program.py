"""ipykernel, on a loop of the policy that is installed."""

from __future__ import annotations

import asyncio
import sys
import warnings

from chosen import new_loop

with warnings.catch_warnings():
    # Policies are deprecated since Python 3.14.
    warnings.simplefilter("ignore", DeprecationWarning)

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return new_loop()

    asyncio.set_event_loop_policy(Policy())

from ipykernel.kernelapp import IPKernelApp

IPKernelApp.launch_instance(argv=sys.argv[2:])
