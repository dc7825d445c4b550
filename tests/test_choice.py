"""Which of the loops a program gets: by class, by argument, by environment."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

import hotloop
from harness import PATIENCE, loop_class, refusal

DRIVERS = {"selector": "epoll", "proactor": "io_uring"}


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """What the machine's environment says does not matter here."""
    monkeypatch.delenv("HOTLOOP_LOOP", raising=False)


def made(word=None):
    """The class of the loop that a word gets."""
    loop = hotloop.new_event_loop(word)
    loop.close()
    return type(loop)


async def running():
    """The class of the running loop."""
    return type(asyncio.get_running_loop())


def test_a_loop_is_what_its_class_says(hotloop_name, no_leaks):
    loop = loop_class(hotloop_name)()
    assert loop.driver == DRIVERS[hotloop_name]
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert isinstance(loop, hotloop.SelectorEventLoop) == (hotloop_name == "selector")
    assert isinstance(loop, hotloop.ProactorEventLoop) == (hotloop_name == "proactor")
    loop.close()
    assert loop.driver == DRIVERS[hotloop_name], "also once it is closed"


def test_a_subclass_has_the_driver_of_its_class(hotloop_name, no_leaks):
    class Own(loop_class(hotloop_name)):
        def __init__(self, name):
            super().__init__()
            self.name = name

    loop = Own("mine")
    assert (loop.driver, loop.name) == (DRIVERS[hotloop_name], "mine")
    loop.close()


def test_without_a_word_it_is_the_selector(monkeypatch, no_leaks):
    assert made() is hotloop.SelectorEventLoop
    monkeypatch.setenv("HOTLOOP_LOOP", "")
    assert made() is hotloop.SelectorEventLoop


def test_a_word_asks_for_a_loop(hotloop_name, no_leaks):
    assert made(hotloop_name) is loop_class(hotloop_name)


def test_auto_takes_the_proactor_where_there_is_one(no_leaks):
    expected = hotloop.SelectorEventLoop if refusal() else hotloop.ProactorEventLoop
    assert made("auto") is expected


def test_the_environment_decides_where_the_program_does_not(hotloop_name, monkeypatch, no_leaks):
    monkeypatch.setenv("HOTLOOP_LOOP", hotloop_name)
    assert made() is loop_class(hotloop_name)
    assert made("selector") is hotloop.SelectorEventLoop
    assert hotloop.run(running()) is loop_class(hotloop_name)
    with asyncio.Runner(loop_factory=hotloop.new_event_loop) as runner:
        assert runner.run(running()) is loop_class(hotloop_name)


@pytest.mark.parametrize("word", ["", "epoll", "Proactor", "io_uring", " auto"])
def test_another_word_is_an_error_that_lists_the_words(word, monkeypatch, no_leaks):
    with pytest.raises(ValueError, match="^driver must be one of 'selector', 'proactor', 'auto', not ") as refused:
        made(word)
    assert repr(word) in str(refused.value)
    if word:
        monkeypatch.setenv("HOTLOOP_LOOP", word)
        with pytest.raises(ValueError, match="^HOTLOOP_LOOP must be one of 'selector', 'proactor', 'auto', not "):
            made()


def test_something_else_than_a_word_is_an_error(no_leaks):
    for word in (1, True, b"selector", ["selector"]):
        with pytest.raises(ValueError, match="driver must be one of"):
            made(word)


def test_the_policy_heeds_the_environment(hotloop_name):
    source = "import asyncio, hotloop, warnings; warnings.simplefilter('ignore'); hotloop.install()"
    source += "; loop = asyncio.new_event_loop(); print(type(loop).__name__); loop.close()"
    environment = os.environ | {"HOTLOOP_LOOP": hotloop_name}
    ended = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (ended.stdout, ended.stderr) == (loop_class(hotloop_name).__name__ + "\n", "")
