"""`hotloop.fs`: files that do what those of the builtin `open` do, on every loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import select
import threading
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import descriptors, run
from hotloop import fs
from hotloop._hotloop import FileRing
from hotloop.fs import _backend, _threads

#: The oracle.
builtin: Any = open

TEXT_MODES = ["r", "w", "a", "x", "r+", "w+", "a+", "rt"]
BINARY_MODES = ["rb", "wb", "ab", "xb", "r+b", "w+b", "a+b"]
WHENCES = st.sampled_from([0, 0, 0, 1, 2, 3])
SIZES = st.one_of(st.none(), st.integers(-1, 40), st.sampled_from([8191, 8192, 8193, 70_000]))
PIECES = st.sampled_from(
    ["a", "é", "€", "😀", "\n", "\r", "\r\n", "line\n", "word ", "\x00", "\ufeff", "x" * 4095, "yz\n" * 3000]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
BYTES = st.one_of(TEXTS.map(lambda text: text.encode()), st.binary(max_size=40), st.just(b"0123456789\n" * 1000))

TEXT_CALLS = st.one_of(
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), SIZES.map(lambda size: (size,))),
    st.tuples(
        st.sampled_from(["read", "readline", "readlines", "tell", "flush", "truncate", "next", "newlines"]), st.just(())
    ),
    st.tuples(st.just("write"), TEXTS.map(lambda text: (text,))),
    st.tuples(st.just("writelines"), st.lists(TEXTS, max_size=3).map(lambda lines: (lines,))),
    st.tuples(st.just("seek"), st.sampled_from([(0,), (0, 1), (0, 2), (3, 1), (-1,), (0, 7), "told"])),
)
BINARY_CALLS = st.one_of(
    st.tuples(st.sampled_from(["read", "readline", "readlines"]), SIZES.map(lambda size: (size,))),
    st.tuples(st.sampled_from(["read", "readline", "tell", "flush", "truncate", "next"]), st.just(())),
    st.tuples(st.just("write"), BYTES.map(lambda data: (data,))),
    st.tuples(st.just("writelines"), st.lists(BYTES, max_size=3).map(lambda lines: (lines,))),
    st.tuples(st.just("readinto"), st.integers(0, 9000)),
    st.tuples(st.just("truncate"), st.tuples(st.integers(-1, 9000))),
    st.tuples(st.just("seek"), st.tuples(st.integers(-20, 9000), WHENCES)),
)

thorough = settings(
    deadline=None,
    derandomize=True,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(params=["io_uring", "threads", "memory"], autouse=True)
def backend(request, monkeypatch):
    """What does the operations, for every test: the backends alone, and one behind what can be done at once."""

    def refused() -> Any:
        raise OSError("refused by the test")

    if request.param != "memory":
        monkeypatch.setattr(_threads, "open_cached", lambda path, flags: None)
        monkeypatch.setattr(_threads, "read_cached", lambda fd, expected: None)

    if request.param != "io_uring":
        monkeypatch.setattr(_backend, "new_ring", refused)
    else:
        try:
            FileRing()
        except OSError as error:
            pytest.skip(f"io_uring is refused here: {error}")
    return request.param


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task, which may be over already."""
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task


class Pair:
    """The same calls on a file of the builtin `open` and on one of hotloop's, each with a copy of its own."""

    def __init__(self, directory: Any, content: bytes | None) -> None:
        self.paths = [str(directory / "builtin"), str(directory / "hotloop")]
        for path in self.paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
        self.told = 0

    def outcome(self, index: int, value: Any) -> Any:
        """What can be compared of a result or an error."""
        if isinstance(value, BaseException):
            text = str(value).replace(self.paths[index], "PATH")
            return type(value), text, getattr(value, "errno", None), getattr(value, "filename", None) and "PATH"
        return value

    async def open(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Both files; none where both refuse in the same words."""
        results: list[Any] = []
        try:
            results.append(builtin(self.paths[0], *args, **kwargs))
        except Exception as error:
            results.append(error)
        try:
            results.append(await fs.open(self.paths[1], *args, **kwargs))
        except Exception as error:
            results.append(error)
        if isinstance(results[0], Exception) or isinstance(results[1], Exception):
            expected, actual = (self.outcome(index, result) for index, result in enumerate(results))
            for result in results:
                if not isinstance(result, Exception):
                    closed = result.close()
                    if closed is not None:
                        await closed
            assert actual == expected
            return None, None
        return results[0], results[1]

    async def call(self, files: tuple[Any, Any], name: str, args: Any) -> None:
        """One call on both."""
        stock, ours = files
        if args == "told":
            args = (self.told,)
        outcomes = []
        for index, file in enumerate(files):
            into = bytearray(args) if name == "readinto" else None
            try:
                if name == "next":
                    # Not iteration, which has `tell` refused in the builtin class.
                    value = file.readline()
                elif name == "newlines":
                    value = file.newlines
                elif into is not None:
                    value = file.readinto(into)
                else:
                    value = getattr(file, name)(*args)
                if asyncio.iscoroutine(value):
                    value = await value
                if into is not None:
                    value = (value, bytes(into))
            except (OSError, ValueError, TypeError, LookupError, AssertionError) as error:
                value = error
            outcomes.append(self.outcome(index, value))
        if name == "tell" and isinstance(outcomes[0], int):
            self.told = outcomes[0]
        assert outcomes[1] == outcomes[0], (name, args)

    def same_content(self) -> None:
        contents = []
        for path in self.paths:
            try:
                with open(path, "rb") as file:
                    contents.append(file.read())
            except FileNotFoundError:
                contents.append(b"none")
        assert contents[1] == contents[0]


async def compare(
    pair: Pair, arguments: tuple[Any, ...], options: dict[str, Any], calls: list[tuple[str, Any]]
) -> None:
    stock, ours = await pair.open(*arguments, **options)
    if stock is None:
        return
    try:
        for name in ("closed", "mode", "encoding", "errors", "line_buffering", "newlines"):
            assert getattr(ours, name, None) == getattr(stock, name, None), name
        assert ours.readable() == stock.readable()
        assert await ours.writable() == stock.writable()
        assert await ours.seekable() == stock.seekable()
        assert await ours.isatty() == stock.isatty()
        for name, args in calls:
            # The builtin class never tells its position again where this was refused.
            if name != "readlines" or stock.readable():
                await pair.call((stock, ours), name, args)
    finally:
        stock.close()
        await ours.close()
    assert ours.closed
    pair.same_content()
    for name, args in calls[:3]:
        await pair.call((stock, ours), name, args)


@thorough
@given(
    mode=st.sampled_from(TEXT_MODES),
    encoding=st.sampled_from(
        [None, "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "ascii", "utf-32", "shift_jis"]
    ),
    errors=st.sampled_from([None, "strict", "replace", "ignore", "surrogateescape"]),
    newline=st.sampled_from([None, "", "\n", "\r", "\r\n"]),
    buffering=st.sampled_from([-1, -1, 1, 7, 100_000]),
    content=st.one_of(st.none(), TEXTS),
    calls=st.lists(TEXT_CALLS, max_size=10),
)
def test_a_text_file_does_what_the_builtin_one_does(
    loop, tmp_path, mode, encoding, errors, newline, buffering, content, calls
):
    encoded = None if content is None else content.encode(encoding or "utf-8", "replace")
    pair = Pair(tmp_path, encoded)
    options = {"encoding": encoding, "errors": errors, "newline": newline}
    run(loop, compare(pair, (mode, buffering), options, calls))


@thorough
@given(
    mode=st.sampled_from(BINARY_MODES),
    buffering=st.sampled_from([-1, -1, 0, 2, 600, 100_000]),
    content=st.one_of(st.none(), BYTES),
    calls=st.lists(BINARY_CALLS, max_size=10),
)
def test_a_binary_file_does_what_the_builtin_one_does(loop, tmp_path, mode, buffering, content, calls):
    run(loop, compare(Pair(tmp_path, content), (mode, buffering), {}, calls))


@thorough
@given(
    content=TEXTS,
    size=st.sampled_from([1, 2, 3, 100]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "shift_jis"]),
)
def test_every_position_that_tell_gives_can_be_returned_to(loop, tmp_path, content, size, encoding):
    path = tmp_path / "file"
    path.write_bytes(content.encode(encoding, "replace"))

    async def main() -> None:
        async with fs.open(path, encoding=encoding) as file:
            places = []
            while True:
                place = await file.tell()
                text = await file.read(size)
                places.append((place, text))
                if not text or len(places) > 40:
                    break
            for place, text in reversed(places):
                assert await file.seek(place) == place
                assert await file.read(size) == text

    run(loop, main())


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("rw",), {}),
        (("",), {}),
        (("z",), {}),
        (("rbt",), {}),
        (("b",), {}),
        (("rb",), {"encoding": "utf-8"}),
        (("rb",), {"errors": "strict"}),
        (("rb",), {"newline": "\n"}),
        (("r", 0), {}),
        (("w", 0), {}),
        (("r", -2), {}),
        (("r", "many"), {}),
        ((b"r",), {}),
        (("r",), {"encoding": "nonsense"}),
        (("w",), {"encoding": "rot13"}),
        (("r",), {"encoding": 7}),
        (("r",), {"newline": "x"}),
        (("r",), {"newline": 3}),
        (("r",), {"errors": "nonsense"}),
        (("r",), {"closefd": False}),
    ],
)
@pytest.mark.parametrize("content", [None, b"text\n"], ids=["missing", "there"])
def test_what_open_refuses_is_refused_in_the_same_words(loop, tmp_path, arguments, options, content):
    pair = Pair(tmp_path, content)

    async def main() -> None:
        stock, ours = await pair.open(*arguments, **options)
        if stock is not None:
            stock.close()
            await ours.close()
        pair.same_content()

    run(loop, main())


@pytest.mark.parametrize("path", [3.5, None, [], "a\0b", b"a\0b", "", ".", -1, 1 << 40, "\ud800"], ids=repr)
@pytest.mark.parametrize("mode", ["r", "w", "rb", "r+"])
def test_a_path_that_is_none_is_refused_in_the_same_words(loop, path, mode):
    def outcome(error: BaseException) -> Any:
        return type(error), str(error), getattr(error, "filename", None)

    with pytest.raises((TypeError, ValueError, OSError)) as expected:
        builtin(path, mode)

    async def main() -> None:
        with pytest.raises((TypeError, ValueError, OSError)) as actual:
            await fs.open(path, mode)
        assert outcome(actual.value) == outcome(expected.value)

    run(loop, main())


def test_a_line_buffer_of_bytes_is_warned_of(loop, tmp_path):
    async def main() -> None:
        with pytest.warns(RuntimeWarning, match="line buffering"):
            await (await fs.open(tmp_path / "file", "wb", 1)).close()

    run(loop, main())


def test_paths_may_be_bytes_and_path_objects(loop, tmp_path):
    async def main() -> None:
        for path in (tmp_path / "file", str(tmp_path / "file"), os.fsencode(tmp_path / "file")):
            async with fs.open(path, "w") as file:
                await file.write("text")
                assert file.name == os.fspath(path)
            async with fs.open(path) as file:
                assert await file.read() == "text"

    run(loop, main())


def test_a_descriptor_is_closed_only_if_it_was_given_away(loop, tmp_path):
    async def main() -> None:
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        async with fs.open(fd, "w", closefd=False) as file:
            await file.write("text")
            assert file.fileno() == fd
        assert os.fstat(fd).st_size == 4
        async with fs.open(fd, "r") as file:
            await file.seek(0)
            assert await file.read() == "text"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    run(loop, main())


def test_an_opener_is_called_with_the_path_and_the_flags(loop, tmp_path):
    seen = []

    def opener(path: str, flags: int) -> int:
        seen.append((path, flags))
        return os.open(path, flags, 0o600)

    async def main() -> None:
        path = str(tmp_path / "file")
        async with fs.open(path, "w", opener=opener) as file:
            await file.write("text")
        with builtin(path, "w", opener=opener):
            pass
        assert seen[0] == seen[1]
        with pytest.raises(ValueError, match="opener returned -1"):
            await fs.open(path, opener=lambda *_: -1)
        with pytest.raises(RuntimeError):
            await fs.open(path, opener=lambda *_: next(iter(())))

    run(loop, main())


def test_new_descriptors_are_not_inherited(loop, tmp_path):
    async def main() -> None:
        async with fs.open(tmp_path / "file", "w") as file:
            assert not os.get_inheritable(file.fileno())

    run(loop, main())


def test_lines_come_one_by_one(loop, tmp_path):
    path = tmp_path / "file"
    path.write_text("".join(f"line {number}\n" for number in range(30_000)) + "end")

    async def main() -> None:
        with builtin(path) as stock:
            async with fs.open(path) as file:
                async for line in file:
                    assert line == next(stock)
            assert next(stock, None) is None
        with builtin(path, "rb") as stock_bytes:
            async with fs.open(path, "rb") as file:
                assert [line async for line in file] == stock_bytes.readlines()

    run(loop, main())


def test_a_line_of_many_chunks_comes_whole(loop, tmp_path):
    path = tmp_path / "file"
    path.write_text("é" * 3_000_000 + "\nnext\n")

    async def main() -> None:
        async with fs.open(path, encoding="utf-8") as file:
            assert len(await file.readline()) == 3_000_001
            assert await file.tell() == 6_000_001
            assert await file.readline() == "next\n"

    run(loop, main())


def test_a_file_may_be_awaited_instead(loop, tmp_path):
    async def main() -> None:
        file = await fs.open(tmp_path / "file", "w")
        await file.write("text")
        await file.close()
        await file.close()
        assert (tmp_path / "file").read_text() == "text"
        with pytest.raises(ValueError, match="I/O operation on closed file"):
            async with file:
                pass

    run(loop, main())


def test_the_buffer_of_a_text_file_is_a_file_of_bytes(loop, tmp_path):
    async def main() -> None:
        async with fs.open(tmp_path / "file", "w+", encoding="utf-8") as file:
            await file.write("é")
            await file.flush()
            assert await file.buffer.seek(0) == 0
            assert await file.buffer.peek() == "é".encode()
            assert await file.buffer.read1(1) == "é".encode()[:1]

    run(loop, main())


def test_tasks_that_write_to_one_file_do_not_mix(loop, tmp_path):
    async def main() -> None:
        async with fs.open(tmp_path / "file", "wb") as file:
            await asyncio.gather(*[file.write(bytes([number]) * 10_000) for number in range(50)])
        content = (tmp_path / "file").read_bytes()
        assert content == b"".join(bytes([number]) * 10_000 for number in range(50))

    run(loop, main())


def test_many_files_at_once(loop, tmp_path):
    async def one(number: int) -> None:
        async with fs.open(tmp_path / str(number), "w") as file:
            await file.write(f"{number}\n" * number)
        async with fs.open(tmp_path / str(number)) as file:
            assert await file.read() == f"{number}\n" * number

    async def main() -> None:
        await asyncio.gather(*[one(number) for number in range(300)])

    run(loop, main())


def test_a_task_that_reads_what_is_in_memory_lets_others_run(loop, tmp_path):
    (tmp_path / "file").write_text("text")

    async def main() -> None:
        ran: list[int] = []
        asyncio.get_running_loop().call_soon(ran.append, 1)
        fd = await fs.os.open(tmp_path / "file", os.O_RDONLY)
        for _ in range(100):
            assert await fs.pread(fd, 10, 0) == b"text"
        await fs.close(fd)
        assert ran == [1]

    run(loop, main())


@pytest.mark.parametrize("backend", ["memory"], indirect=True)
@pytest.mark.parametrize("mode", ["r", "rb"])
def test_what_is_in_memory_takes_no_thread(loop, tmp_path, backend, mode, monkeypatch):
    (tmp_path / "file").write_text("text")
    submitted: list[Any] = []
    submit = _threads.ThreadBackend.submit

    def seen(self: Any, landed: Any, function: Any, *arguments: Any) -> Any:
        submitted.append(function)
        return submit(self, landed, function, *arguments)

    monkeypatch.setattr(_threads.ThreadBackend, "submit", seen)

    async def main() -> None:
        async with fs.open(tmp_path / "file", mode) as file:
            assert await file.read() in ("text", b"text")
            assert await file.read() in ("", b"")
        assert file.closed

    before = descriptors()
    run(loop, main())
    assert descriptors() == before
    # The second reading finds the end somewhere else than it was: that is for a thread.
    assert submitted == [_threads.all_of]


def test_a_file_that_grows_is_read_to_its_end(loop, tmp_path):
    (tmp_path / "file").write_text("some")

    async def main() -> None:
        async with fs.open(tmp_path / "file") as file:
            with builtin(tmp_path / "file", "a") as other:
                other.write(" more")
            assert await file.read() == "some more"

    run(loop, main())


def test_a_file_of_many_megabytes(loop, tmp_path):
    content = os.urandom(5_000_000)

    async def main() -> None:
        async with fs.open(tmp_path / "file", "wb") as file:
            assert await file.write(content) == len(content)
        async with fs.open(tmp_path / "file", "rb") as file:
            assert await file.read() == content
        async with fs.open("/proc/self/maps", "rb") as file:
            assert len(await file.read()) > 4096

    run(loop, main())


def test_more_fifos_than_threads_that_wait_for_each_other(loop, tmp_path):
    """Each end of a FIFO waits in `open` for the other one: nothing may wait for a call that itself waits for it."""

    async def write(path: str) -> None:
        async with fs.open(path, "w") as file:
            await file.write("text")

    async def read(path: str) -> None:
        async with fs.open(path) as file:
            assert await file.read() == "text"

    async def main() -> None:
        paths = [str(tmp_path / str(number)) for number in range(2)]
        for path in paths:
            os.mkfifo(path)
        await asyncio.gather(*[read(path) for path in paths], *[write(path) for path in paths])

    run(loop, main())


def test_a_cancelled_open_leaves_no_descriptor(loop, tmp_path):
    """The `loop` fixture looks at the descriptors that are left."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)

    async def main() -> None:
        task = asyncio.ensure_future(one())
        while not opening.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Only now can the other end be opened, and with it the first, which nobody wants.
        await fs.os.close(await fs.os.open(fifo, os.O_WRONLY))
        for path in (tmp_path / "file", tmp_path / "other"):
            path.write_text("text")
            task = asyncio.ensure_future(open_and_close(path))
            await asyncio.sleep(0)
            await cancelled(task)

    async def open_and_close(path: Any) -> None:
        async with fs.open(path):
            pass

    opening = threading.Event()

    async def one() -> None:
        opening.set()
        async with fs.open(fifo):
            raise AssertionError("it has no other end")

    run(loop, main())


def test_a_cancelled_read_loses_nothing(loop, tmp_path):
    near, far = os.pipe()

    async def main() -> None:
        async with fs.open(near, "rb") as file:
            for method in (file.read1, file.readline, lambda: file.read(4), file.peek):
                task = asyncio.ensure_future(method())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                os.write(far, b"four")
                assert await file.read(4) == b"four"
            task = asyncio.ensure_future(file.readline())
            os.write(far, b"be")
            while select.select([near], [], [], 0)[0]:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            os.write(far, b"gin\nend\n")
            assert await file.readline() == b"begin\n"
            os.close(far)
            assert await file.read() == b"end\n"

    run(loop, main())


def test_a_file_is_closed_behind_a_cancelled_read(loop):
    near, far = os.pipe()

    async def use(reading: asyncio.Event) -> None:
        async with fs.open(near, "rb") as file:
            reading.set()
            await file.read(1)

    async def main() -> None:
        reading = asyncio.Event()
        task = asyncio.ensure_future(use(reading))
        await reading.wait()  # however long a thread takes to open it
        task.cancel()  # in the reading
        await asyncio.sleep(0)
        task.cancel()  # in the closing, which waits for the reading
        await asyncio.sleep(0)
        os.write(far, b"x")
        with pytest.raises(asyncio.CancelledError):
            await task
        while True:
            try:
                os.fstat(near)
            except OSError:
                break
            await asyncio.sleep(0)
        os.close(far)

    run(loop, main())


def test_a_cancelled_write_is_followed_by_the_next_one(loop, tmp_path):
    async def main() -> None:
        async with fs.open(tmp_path / "file", "wb", buffering=10) as file:
            task = asyncio.ensure_future(file.write(b"first" * 10))
            await asyncio.sleep(0)
            await cancelled(task)
            await file.write(b"second" * 10)
        assert (tmp_path / "file").read_bytes() == b"first" * 10 + b"second" * 10

    run(loop, main())


def test_a_loop_may_be_closed_while_a_file_is_opened(new_loop, tmp_path, backend):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    loop = new_loop()

    async def main() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(fs.open(fifo).__aenter__())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task

    run(loop, main())
    loop.close()
    if backend != "io_uring":
        # Opens the other end; the first is closed in the thread that has opened it.
        os.close(os.open(fifo, os.O_WRONLY))
    else:
        # The ring went with the loop, and with it what it was about to open.
        with pytest.raises(OSError, match="No such device or address"):
            os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    while fifo in descriptors().values():
        pass


def test_errors_of_writing_are_told_and_the_file_is_closed(loop):
    async def main() -> None:
        file = await fs.open("/dev/full", "w")
        await file.write("text")
        with pytest.raises(OSError, match="No space left on device"):
            await file.flush()
        with pytest.raises(OSError, match="No space left on device"):
            await file.close()
        assert file.closed

    run(loop, main())


def test_a_file_that_is_dropped_is_written_and_warned_of(loop, tmp_path):
    async def main() -> None:
        file = await fs.open(tmp_path / "file", "w")
        await file.write("text")
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del file

    run(loop, main())
    assert (tmp_path / "file").read_text() == "text"


def test_descriptors_that_do_not_block(loop):
    near, far = os.pipe()
    os.set_blocking(near, False)
    os.set_blocking(far, False)

    async def main() -> None:
        async with fs.open(near, "rb", buffering=0) as raw, fs.open(far, "wb", buffering=0) as out:
            assert await raw.read(5) is None
            assert await raw.readinto(bytearray(5)) is None
            assert await raw.readall() is None
            written = 0
            while (size := await out.write(b"x" * 65_536)) is not None:
                written += size
            assert written >= 65_536
            assert len(await raw.readall()) == written
            assert await out.write(b"text") == 4
            async with fs.open(near, "rb", closefd=False) as file:
                assert await file.read(9) == b"text"
                assert await file.read(9) is None
                assert await file.read() is None

    run(loop, main())


def test_functions_on_descriptors(loop, tmp_path):
    async def main() -> None:
        fd = await fs.os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        assert await fs.write(fd, bytearray(b"hello world")) == 11
        assert await fs.pwrite(fd, memoryview(b"W"), 6) == 1
        assert await fs.pread(fd, 5, 6) == b"World"
        assert await fs.read(fd, 5) == b""
        await fs.fsync(fd)
        assert (await fs.stat(fd)).st_size == (await fs.stat(tmp_path / "file")).st_size == 11
        await fs.close(fd)
        for call in (fs.read(fd, 1), fs.write(fd, b""), fs.fsync(fd), fs.stat(fd), fs.close(fd), fs.pread(fd, 1, 0)):
            with pytest.raises(OSError, match="Bad file descriptor"):
                await call
        with pytest.raises(FileNotFoundError) as raised:
            await fs.stat(tmp_path / "nothing")
        assert raised.value.filename == str(tmp_path / "nothing")

    run(loop, main())


def test_functions_of_os(loop, tmp_path):
    async def main() -> None:
        await fs.os.makedirs(tmp_path / "a" / "b", exist_ok=True)
        assert await fs.os.listdir(tmp_path / "a") == ["b"]
        await fs.os.rename(tmp_path / "a" / "b", tmp_path / "c")
        await fs.os.rmdir(tmp_path / "c")
        with pytest.raises(FileNotFoundError):
            await fs.os.remove(tmp_path / "c")
        assert await fs.os.access(tmp_path, os.R_OK)

    run(loop, main())


def test_functions_of_os_are_those_of_the_standard_library():
    for name in fs.os.__all__:
        assert inspect.iscoroutinefunction(getattr(fs.os, name)), name
        assert callable(getattr(os, name)), name


def test_an_executor_that_was_shut_down_is_told_of(new_loop, tmp_path):
    loop = new_loop()

    async def main() -> None:
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match="shutdown"):
            await fs.os.listdir(tmp_path)

    run(loop, main())
    loop.close()


def test_without_a_running_loop_nothing_is_opened(tmp_path):
    coroutine = fs.open(tmp_path / "file", "w").__aenter__()
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)
    assert not (tmp_path / "file").exists()


def test_a_file_goes_on_in_another_loop(new_loop, tmp_path):
    first, second = new_loop(), new_loop()

    async def begin() -> Any:
        file = await fs.open(tmp_path / "file", "w+")
        await file.write("one\n")
        return file

    file = run(first, begin())
    run(first, first.shutdown_default_executor())
    first.close()

    async def end() -> None:
        await file.write("two\n")
        await file.seek(0)
        assert await file.readlines() == ["one\n", "two\n"]
        await file.close()

    run(second, end())
    run(second, second.shutdown_default_executor())
    second.close()


def test_a_forked_child_has_calls_of_its_own(loop, tmp_path):
    (tmp_path / "file").write_text("text")

    async def read() -> str:
        async with fs.open(tmp_path / "file") as file:
            return await file.read()

    assert run(loop, read()) == "text"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            mine = asyncio.SelectorEventLoop()
            status = 0 if mine.run_until_complete(read()) == "text" else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_leaves_an_operation_of_the_parent_alone(loop):
    """What the parent waits for comes to the parent, though the child has copies of all its descriptors."""
    ends = os.pipe()

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    async def main() -> None:
        reading = asyncio.ensure_future(fs.read(ends[0], 10))
        await asyncio.sleep(0)
        fork()
        os.write(ends[1], b"text")
        assert await reading == b"text"

    try:
        run(loop, main())
    finally:
        os.close(ends[0])
        os.close(ends[1])


def test_the_shape_is_that_of_aiofiles(loop, tmp_path):
    """What aiofiles' text and binary files have, these have too: names, and which of them are to be awaited."""
    awaited = [
        "close",
        "flush",
        "isatty",
        "read",
        "readline",
        "readlines",
        "seek",
        "seekable",
        "tell",
        "truncate",
        "writable",
        "write",
        "writelines",
    ]

    async def main() -> None:
        async with fs.open(tmp_path / "file", "w+") as text, fs.open(tmp_path / "file", "r+b") as data:
            for name in awaited:
                assert inspect.iscoroutinefunction(getattr(text, name)), name
                assert inspect.iscoroutinefunction(getattr(data, name)), name
            for name in ("readable", "fileno"):
                assert not inspect.iscoroutinefunction(getattr(text, name)), name
            assert isinstance(text.buffer, type(data))

    run(loop, main())
