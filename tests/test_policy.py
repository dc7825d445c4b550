"""Ways to choose hotloop: run(), a loop factory, install(), the policy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import warnings

import pytest


def run_script(script):
    """Run a script in a fresh interpreter; its output, of a run that ended well."""
    source = "import asyncio, warnings\nimport hotloop\n" + textwrap.dedent(script)
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def kind():
    """The class of the running loop."""
    return type(asyncio.get_running_loop())


def test_run_runs_on_hotloop(no_leaks):
    import hotloop

    assert hotloop.run(kind()) is hotloop.SelectorEventLoop


def test_run_takes_debug(no_leaks):
    import hotloop

    async def debug():
        return asyncio.get_running_loop().get_debug()

    assert hotloop.run(debug(), debug=True) is True
    assert hotloop.run(debug()) is False


def test_run_inside_a_run_is_refused(no_leaks):
    import hotloop

    async def nested():
        coroutine = kind()
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                hotloop.run(coroutine)
        finally:
            coroutine.close()

    hotloop.run(nested())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run takes loop_factory from 3.12 on")
def test_asyncio_run_takes_the_loop_factory(no_leaks):
    import hotloop

    assert asyncio.run(kind(), loop_factory=hotloop.new_event_loop) is hotloop.SelectorEventLoop


def test_new_event_loop_is_new_each_time(no_leaks):
    import hotloop

    first, second = hotloop.new_event_loop(), hotloop.new_event_loop()
    assert type(first) is type(second) is hotloop.SelectorEventLoop
    assert first is not second
    first.close()
    second.close()


def test_install_and_uninstall():
    output = run_script(
        """
        warnings.simplefilter("ignore")

        async def kind():
            return type(asyncio.get_running_loop()).__module__.split(".")[0]

        print(asyncio.run(kind()))
        hotloop.install()
        print(asyncio.run(kind()))
        hotloop.uninstall()
        print(asyncio.run(kind()))
        """
    )
    assert output == "asyncio\nhotloop\nasyncio\n"


def test_get_event_loop_after_install_is_as_on_stock_asyncio_of_this_python():
    """uvloop#702, ray#57992: created lazily where stock asyncio does so, refused where it refuses."""
    script = """
        warnings.simplefilter("ignore")
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError as error:
            print(error)
        else:
            print("a loop", loop is asyncio.get_event_loop())
            loop.close()
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        print(asyncio.get_event_loop() is loop)
        loop.close()
        asyncio.set_event_loop(None)
        try:
            asyncio.get_event_loop()
        except RuntimeError as error:
            print(error)
        """
    assert run_script("hotloop.install()\n" + textwrap.dedent(script)) == run_script(script)


def test_get_event_loop_in_a_thread_without_one_is_refused():
    output = run_script(
        """
        import threading
        warnings.simplefilter("ignore")
        hotloop.install()
        def target():
            try:
                asyncio.get_event_loop()
            except RuntimeError as error:
                print(error)
        thread = threading.Thread(target=target, name="other")
        thread.start()
        thread.join()
        """
    )
    assert output == "There is no current event loop in thread 'other'.\n"


def test_the_policy_makes_hotloops_loops(no_leaks):
    import hotloop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = hotloop.EventLoopPolicy()
        loop = policy.new_event_loop()
        assert type(loop) is hotloop.SelectorEventLoop
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        policy.set_event_loop(None)
        loop.close()
