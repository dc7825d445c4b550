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


# hotloop's own policy, under asyncio's names


def compare(script):
    """What a script prints with `names` standing for asyncio, and then for hotloop."""
    lines = "warnings.simplefilter('ignore')\n" + textwrap.dedent(script)
    stock = run_script("names = asyncio\n" + lines)
    assert run_script("names = hotloop\n" + lines) == stock
    return stock


def test_the_functions_do_what_those_of_asyncio_do():
    output = compare(
        """
        import threading

        def attempt(call, *args):
            try:
                return call(*args)
            except Exception as error:
                return type(error).__name__, str(error)

        print(attempt(names.get_running_loop))
        print(attempt(names.set_event_loop_policy, 5))
        print(attempt(names.set_event_loop, 5))
        loop = names.new_event_loop()
        names.set_event_loop(loop)
        print(names.get_event_loop() is loop, names.get_event_loop_policy().get_event_loop() is loop)

        def elsewhere():
            print(attempt(names.get_event_loop)[0])
            own = names.new_event_loop()
            names.set_event_loop(own)
            print(names.get_event_loop() is own)
            own.close()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        print(names.get_event_loop() is loop)

        async def running():
            return names.get_event_loop() is names.get_running_loop() is loop

        print(loop.run_until_complete(running()))
        names.set_event_loop(None)
        print(attempt(names.get_event_loop)[0])
        loop.close()
        policy = names.get_event_loop_policy()
        print(policy is names.get_event_loop_policy(), type(policy).__mro__[-1])
        names.set_event_loop_policy(None)
        print(isinstance(names.get_event_loop_policy(), names.AbstractEventLoopPolicy))
        for name in ("get_event_loop", "new_event_loop"):
            print(attempt(getattr(names.AbstractEventLoopPolicy(), name))[0])
        """
    )
    assert output.count("RuntimeError") == 3


def test_a_policy_of_ones_own_makes_the_loops():
    assert (
        compare(
            """
            class Policy(names.DefaultEventLoopPolicy):
                made = 0

                def new_event_loop(self):
                    type(self).made += 1
                    return super().new_event_loop()

            names.set_event_loop_policy(Policy())
            names.new_event_loop().close()
            print(type(names.get_event_loop_policy()).__name__, Policy.made)
            """
        )
        == "Policy 1\n"
    )


def test_a_policy_may_ask_for_hotloop_s_loops_by_name():
    output = run_script(
        """
        warnings.simplefilter("ignore")

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self):
                print("asked")
                return hotloop.new_event_loop()

        hotloop.set_event_loop_policy(Policy())
        hotloop.new_event_loop().close()
        hotloop.new_event_loop("selector").close()
        """
    )
    assert output == "asked\n"


def test_hotloop_s_policy_leaves_asyncio_s_alone():
    output = run_script(
        """
        warnings.simplefilter("ignore")
        loop = hotloop.new_event_loop()
        hotloop.set_event_loop(loop)
        asyncio.set_event_loop(None)
        print(hotloop.get_event_loop() is loop)
        print(isinstance(asyncio.get_event_loop_policy(), hotloop.DefaultEventLoopPolicy))
        hotloop.install()
        print(asyncio.get_event_loop_policy() is hotloop.get_event_loop_policy(), asyncio.get_event_loop() is loop)
        loop.close()
        """
    )
    assert output == "True\nFalse\nTrue True\n"


def test_no_function_of_hotloop_s_policy_is_deprecated():
    """The warnings of asyncio's names are for those who use asyncio's names."""
    run_script(
        """
        warnings.simplefilter("error")
        policy = hotloop.get_event_loop_policy()
        hotloop.set_event_loop_policy(None)
        hotloop.set_event_loop_policy(policy)
        loop = hotloop.new_event_loop()
        hotloop.set_event_loop(loop)
        assert hotloop.get_event_loop() is loop
        hotloop.set_event_loop(None)
        loop.close()
        """
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio warns from 3.12 on")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio makes no loop unasked from 3.14 on")
@pytest.mark.parametrize("names", ["asyncio", "hotloop"])
def test_a_loop_made_unasked_is_a_warning_at_the_caller(names):
    output = run_script(
        f"""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            {names}.get_event_loop().close()
        print([(str(warning.message), warning.filename) for warning in caught])
        """
    )
    assert output == "[('There is no current event loop', '<string>')]\n"
