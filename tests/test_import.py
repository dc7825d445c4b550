"""Importing hotloop changes nothing in the program that imports it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from harness import PATIENCE


def run_script(script):
    """Run a script in a fresh interpreter; its output, of a run without a complaint."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_importing_changes_nothing():
    output = run_script(
        """
        import asyncio, gc, os, selectors, signal, socket, ssl, sys, threading, warnings

        def functions(module):
            found = {}
            for name, value in vars(module).items():
                found[name] = id(value)
                if isinstance(value, type):
                    found.update({f"{name}.{key}": id(member) for key, member in vars(value).items()
                                  if not key.startswith(("__", "_abc_"))})
            return found

        def state():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                policy = asyncio.events._event_loop_policy
            modules = [asyncio, *(module for name, module in sorted(sys.modules.items()) if name.startswith("asyncio."))]
            return {
                "policy": policy,
                "modules": {module.__name__: functions(module) for module in [*modules, socket, ssl, selectors, signal]},
                "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
                "wakeup": signal.set_wakeup_fd(-1),
                "threads": [thread.name for thread in threading.enumerate()],
                "descriptors": sorted(os.listdir("/proc/self/fd")),
                "hooks": (sys.get_asyncgen_hooks(), sys.excepthook, sys.unraisablehook, threading.excepthook),
                "switch": sys.getswitchinterval(),
                "recursion": sys.getrecursionlimit(),
                "gc": (gc.isenabled(), gc.get_threshold()),
                "tasks": len(os.listdir("/proc/self/task")),
                "filters": list(warnings.filters),
                "environment": dict(os.environ),
            }

        before = state()
        import hotloop
        after = state()
        print([key for key in before if before[key] != after[key]])
        """
    )
    assert output == "[]\n"


@pytest.mark.parametrize("use", ["", "hotloop.install(); hotloop.uninstall()"], ids=["imported", "installed"])
def test_the_filters_of_warnings_hold_to_the_end(use):
    """At its end CPython goes by the filters that the last warning met, not by those of its module `warnings`."""
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "default", "-c"),
            f"import asyncio, hotloop, warnings; {use}\n"
            "warnings.simplefilter('ignore', ResourceWarning)\n"
            "loop = asyncio.SelectorEventLoop()\n",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_asyncio_run_stays_stock_after_the_import():
    output = run_script(
        """
        import asyncio, hotloop

        async def kind():
            return type(asyncio.get_running_loop()).__module__.split(".")[0]

        print(asyncio.run(kind()))
        """
    )
    assert output == "asyncio\n"


def test_the_public_names_are_there():
    import hotloop

    for name in ("SelectorEventLoop", "new_event_loop", "run", "install", "uninstall", "EventLoopPolicy"):
        assert name in hotloop.__all__
        assert hasattr(hotloop, name)


def test_what_was_replaced_before_the_import_is_called():
    """logfire#2186: tools patch asyncio when they are imported, which may be first."""
    output = run_script(
        """
        import asyncio, asyncio.base_events, functools, socket

        seen = set()

        def watch(owner, name):
            original = getattr(owner, name)

            @functools.wraps(original)
            def watched(*args, **kwargs):
                seen.add(original.__qualname__)
                return original(*args, **kwargs)

            setattr(owner, name, watched)

        watch(asyncio.Handle, "_run")
        watch(asyncio.Handle, "cancel")
        watch(asyncio.StreamReader, "feed_data")
        watch(socket, "getaddrinfo")

        class Socket(socket.socket):
            def __init__(self, *args, **kwargs):
                seen.add("socket")
                super().__init__(*args, **kwargs)

        socket.socket = Socket

        import hotloop

        async def serve(reader, writer):
            writer.write(await reader.read())
            writer.close()

        async def main():
            loop = asyncio.get_running_loop()
            loop.call_soon(int).cancel()
            async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
                address = server.sockets[0].getsockname()
                await loop.getaddrinfo("127.0.0.1", 80)
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"x")
                writer.write_eof()
                assert await reader.read() == b"x"
                writer.close()
                await writer.wait_closed()

        hotloop.run(main())
        print(sorted(seen))
        """
    )
    assert output == "['Handle._run', 'Handle.cancel', 'StreamReader.feed_data', 'getaddrinfo', 'socket']\n"
