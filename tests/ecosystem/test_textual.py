"""Textual, headless, driven by its pilot."""

from __future__ import annotations

import asyncio

from textual import work
from textual.app import App, ComposeResult
from textual.widgets import Button, Input, Label

from .harness import LoopUnderTest, package_of


class Program(App[int]):
    """A button that counts, a field, a worker in a thread and one on the loop, and a timer."""

    BINDINGS = [("q", "leave", "Leave")]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.pressed = 0
        self.ticked = asyncio.Event()
        self.package = ""

    def compose(self) -> ComposeResult:
        button = Button("Count", id="count")
        # Nobody can press one while it shows that it was pressed.
        button.active_effect_duration = 0
        yield button
        yield Input(id="name")
        yield Label("nothing", id="said")

    def on_mount(self) -> None:
        self.package = package_of(asyncio.get_running_loop())
        self.set_timer(0.001, self.ticked.set)

    def on_button_pressed(self) -> None:
        self.pressed += 1

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.in_a_thread(event.value)

    @work(thread=True)
    def in_a_thread(self, said: str) -> None:
        self.call_from_thread(self.on_the_loop, said.upper())

    @work
    async def on_the_loop(self, said: str) -> None:
        await asyncio.sleep(0)
        self.query_one("#said", Label).update(said)

    def action_leave(self) -> None:
        self.exit(self.pressed)


def test_an_application_runs_under_its_pilot(loop_under_test: LoopUnderTest) -> None:
    async def main() -> None:
        program = Program()
        async with program.run_test() as pilot:
            assert program.package == loop_under_test.package
            await program.ticked.wait()
            for _ in range(3):
                await pilot.click("#count")
            assert program.pressed == 3
            await pilot.click("#name")
            await pilot.press(*"hotloop", "enter")
            # Both workers: the second is started by the first, from its thread.
            while str(program.query_one("#said", Label).content) == "nothing":
                await program.workers.wait_for_complete()
                await pilot.pause()
            assert str(program.query_one("#said", Label).content) == "HOTLOOP"
            program.set_focus(None)
            await pilot.press("q")
        assert program.return_value == 3

    loop_under_test.run(main())
