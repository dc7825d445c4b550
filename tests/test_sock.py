"""sock_*: results, errors, cancellation, and no watcher that outlives its socket."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import os
import random
import socket
import threading

import pytest

from harness import (
    PATIENCE,
    descriptors,
    fill,
    outcome,
    receive_exactly,
    received_in_thread,
    run,
    same_as_stock,
    stock_loop,
    tcp_pair,
    turns,
    unix_pair,
)


@pytest.fixture
def listener(no_leaks):
    """A listening TCP socket on loopback that does not block."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def full_listener(no_leaks):
    """An address whose queue is full: a connect to it neither succeeds nor fails. The sockets that fill it are kept."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock, contextlib.ExitStack() as stack:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(sock.getsockname())
        yield sock.getsockname()


def nonblocking(family=socket.AF_INET, kind=socket.SOCK_STREAM):
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def test_recv_what_is_there_and_what_comes(loop, pair):
    near, far = pair
    far.send(b"there")
    assert run(loop, loop.sock_recv(near, 100)) == b"there"
    task = loop.create_task(loop.sock_recv(near, 4))
    turns(loop, 2)
    assert not task.done()
    far.send(b"later")
    assert run(loop, task) == b"late"
    assert run(loop, loop.sock_recv(near, 4)) == b"r"
    far.close()
    assert run(loop, loop.sock_recv(near, 4)) == b""


@pytest.mark.parametrize(
    "make", [lambda: bytearray(8), lambda: memoryview(bytearray(8)), lambda: array.array("I", [0, 0])]
)
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "waits"])
def test_recv_into_a_buffer(loop, pair, make, waits):
    near, far = pair
    buffer = make()
    if not waits:
        far.send(b"abcdefgh")
    task = loop.create_task(loop.sock_recv_into(near, buffer))
    if waits:
        turns(loop, 2)
        far.send(b"abcdefgh")
    assert run(loop, task) == 8
    assert bytes(buffer) == b"abcdefgh"


@pytest.mark.parametrize("size", [1, 1000, 100_000, 3_000_000])
def test_sendall_sends_all(loop, pair, size):
    near, far = pair
    payload = random.Random(size).randbytes(size)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with received_in_thread(far) as received:
        assert run(loop, loop.sock_sendall(near, payload)) is None
        near.shutdown(socket.SHUT_WR)
    assert received == [payload]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: array.array("B", data)])
def test_sendall_takes_any_buffer(loop, pair, wrap):
    near, far = pair
    payload = os.urandom(400_000)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with received_in_thread(far) as received:
        run(loop, loop.sock_sendall(near, wrap(payload)))
        near.shutdown(socket.SHUT_WR)
    assert received == [payload]


def test_a_bytearray_cannot_be_resized_while_it_is_sent(loop, pair):
    """The loop holds a view of it as long as it waits for room, and no longer."""
    near, far = pair
    data = bytearray(os.urandom(4_000_000) * 8)  # more than the kernel ever keeps for both ends
    task = loop.create_task(loop.sock_sendall(near, data))
    turns(loop, 2)
    assert not task.done()
    for change in [data.clear, lambda: data.append(0), lambda: data.extend(b"more")]:
        with pytest.raises(BufferError):
            change()
    with received_in_thread(far) as received:
        run(loop, task)
        near.shutdown(socket.SHUT_WR)
    assert received == [bytes(data)]
    data.clear()


def test_a_bytearray_can_be_resized_once_its_sending_was_cancelled(loop, pair):
    near, _ = pair
    data = bytearray(32_000_000)  # more than the kernel ever keeps for both ends
    task = loop.create_task(loop.sock_sendall(near, data))
    turns(loop, 2)
    task.cancel()
    turns(loop, 3)
    assert task.cancelled()
    del task
    gc.collect()
    data.clear()


def test_sendall_of_nothing(loop, pair):
    near, _ = pair
    assert run(loop, loop.sock_sendall(near, b"")) is None


def test_sendall_fails_when_the_peer_is_gone(loop, unix):
    near, far = unix
    far.close()
    with pytest.raises(BrokenPipeError):
        run(loop, loop.sock_sendall(near, b"x"))


def test_sendall_fails_when_the_peer_goes_while_it_waits(loop, unix):
    near, far = unix
    task = loop.create_task(loop.sock_sendall(near, bytes(4_000_000)))
    turns(loop, 2)
    far.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        run(loop, task)
    assert loop.remove_writer(near) is False


def test_recv_raises_a_reset(loop, tcp):
    near, far = tcp
    task = loop.create_task(loop.sock_recv(near, 1))
    turns(loop, 2)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(ConnectionResetError):
        run(loop, task)


def test_send_and_receive_at_the_same_time(loop, pair):
    near, far = pair
    payload = os.urandom(2_000_000)

    async def both():
        receiving = loop.create_task(loop.sock_recv(near, 10))
        await loop.sock_sendall(near, payload)
        return await receiving

    def peer():
        assert receive_exactly(far, len(payload)) == payload
        far.sendall(b"answer")

    thread = threading.Thread(target=peer)
    thread.start()
    assert run(loop, both()) == b"answer"
    thread.join()


def test_accept_waits_and_gives_a_socket_that_does_not_block(loop, listener):
    task = loop.create_task(loop.sock_accept(listener))
    turns(loop, 2)
    with socket.create_connection(listener.getsockname(), PATIENCE) as client:
        accepted, address = run(loop, task)
        with accepted:
            assert address == client.getsockname()
            assert accepted.gettimeout() == 0
            assert accepted.get_inheritable() is False


def test_connect(loop, listener):
    with nonblocking() as sock:
        assert run(loop, loop.sock_connect(sock, listener.getsockname())) is None
        assert sock.getpeername() == listener.getsockname()


def test_connect_refused(loop, no_leaks):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
        with nonblocking() as sock, pytest.raises(ConnectionRefusedError) as caught:
            run(loop, loop.sock_connect(sock, address))
    assert str(caught.value) == f"[Errno 111] Connect call failed {address}"


def test_connect_over_unix(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, nonblocking(socket.AF_UNIX) as sock:
        with pytest.raises(FileNotFoundError):
            run(loop, loop.sock_connect(sock, path))
        server.bind(path)
        server.listen()
        run(loop, loop.sock_connect(sock, path))
        assert sock.getpeername() == path


def test_connect_over_unix_to_a_full_queue_ends_as_on_stock_asyncio(loop, tmp_path):
    """A Unix socket says EAGAIN there, which is no connection under way."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(path)
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(nonblocking(socket.AF_UNIX))
            with contextlib.suppress(BlockingIOError):
                filler.connect(path)

        def connect(loop):
            async def bounded():
                with nonblocking(socket.AF_UNIX) as sock:
                    try:
                        await asyncio.wait_for(loop.sock_connect(sock, path), 0.1)
                    except TimeoutError:
                        return None
                    return sock.getpeername()

            return loop.run_until_complete(bounded())

        same_as_stock(loop, connect)


def test_connect_with_an_ipv6_address_of_four(loop, no_leaks):
    """uvloop#99"""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        address = server.getsockname()
        assert len(address) == 4
        with nonblocking(socket.AF_INET6) as sock:
            run(loop, loop.sock_connect(sock, address))
            assert sock.getpeername() == address


def test_connect_resolves_a_host_name(loop, listener):
    """uvloop#99"""
    with nonblocking() as sock:
        run(loop, loop.sock_connect(sock, ("localhost", listener.getsockname()[1])))
        assert sock.getpeername() == listener.getsockname()


def test_connect_to_a_name_that_does_not_resolve(loop, no_leaks):
    """uvloop#99"""
    with nonblocking() as sock, pytest.raises(socket.gaierror):
        run(loop, loop.sock_connect(sock, ("host name.invalid", 80)))


def test_udp_with_addresses(loop, no_leaks):
    with nonblocking(kind=socket.SOCK_DGRAM) as one, nonblocking(kind=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        task = loop.create_task(loop.sock_recvfrom(two, 100))
        turns(loop, 2)
        assert run(loop, loop.sock_sendto(one, b"datagram", two.getsockname())) == 8
        assert run(loop, task) == (b"datagram", one.getsockname())
        buffer = bytearray(100)
        task = loop.create_task(loop.sock_recvfrom_into(one, buffer))
        turns(loop, 2)
        assert run(loop, loop.sock_sendto(two, b"answer", one.getsockname())) == 6
        assert run(loop, task) == (6, two.getsockname())
        assert buffer[:6] == b"answer"
        run(loop, loop.sock_sendto(two, b"", one.getsockname()))
        assert run(loop, loop.sock_recvfrom(one, 10)) == (b"", two.getsockname())
        run(loop, loop.sock_sendto(two, b"0123456789", one.getsockname()))
        assert run(loop, loop.sock_recvfrom_into(one, buffer, 4)) == (4, two.getsockname())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_datagrams_with_addresses_of_each_family(loop, family, tmp_path):
    """The address is the very one that the socket's own method answers."""
    where = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
    with nonblocking(family, socket.SOCK_DGRAM) as one, nonblocking(family, socket.SOCK_DGRAM) as two:
        for name, sock in [("one", one), ("two", two)]:
            sock.bind(where.get(family, str(tmp_path / name)))
        for size in [0, 1, 1000]:
            assert run(loop, loop.sock_sendto(one, bytes(size), two.getsockname())) == size
            assert run(loop, loop.sock_recvfrom(two, 500)) == (bytes(min(size, 500)), one.getsockname())
            run(loop, loop.sock_sendto(one, bytes(size), two.getsockname()))
            assert run(loop, loop.sock_recvfrom_into(two, bytearray(2000))) == (size, one.getsockname())


def test_a_stream_has_no_addresses(loop, unix):
    near, far = unix
    far.send(b"bytes")
    data, address = run(loop, loop.sock_recvfrom(near, 3))
    assert data == b"byt"
    count, same = run(loop, loop.sock_recvfrom_into(near, bytearray(9)))
    assert (count, same) == (2, address)
    far.send(b"more")
    assert near.recvfrom(9) == (b"more", address)


@pytest.mark.parametrize(
    "call",
    [
        lambda loop, sock, peer: loop.sock_sendto(sock, b"x", ("localhost", peer[1])),
        lambda loop, sock, peer: loop.sock_sendto(sock, b"x", ("127.0.0.1", 70000)),
        lambda loop, sock, peer: loop.sock_sendto(sock, b"x", ("127.0.0.1",)),
        lambda loop, sock, peer: loop.sock_sendto(sock, b"x", None),
        lambda loop, sock, peer: loop.sock_sendto(sock, "x", peer),
        lambda loop, sock, peer: loop.sock_sendto(sock, bytes(70000), peer),
        lambda loop, sock, peer: loop.sock_sendto(sock, bytearray(b"x"), peer),
        lambda loop, sock, peer: loop.sock_sendto(sock, memoryview(b"abcd")[::2], peer),
        lambda loop, sock, peer: loop.sock_recvfrom(sock, -1),
        lambda loop, sock, peer: loop.sock_recvfrom(sock, "x"),
        lambda loop, sock, peer: loop.sock_recvfrom(sock, 1 << 70),
        lambda loop, sock, peer: loop.sock_recvfrom_into(sock, b"x"),
        lambda loop, sock, peer: loop.sock_recvfrom_into(sock, bytearray(1), 2),
        lambda loop, sock, peer: loop.sock_recvfrom_into(sock, bytearray(1), -1),
        lambda loop, sock, peer: loop.sock_recvfrom_into(sock, 1),
    ],
    ids=range(15),
)
def test_datagram_calls_end_as_on_stock_asyncio(loop, call, no_leaks):
    def ask(loop):
        with nonblocking(kind=socket.SOCK_DGRAM) as sock, nonblocking(kind=socket.SOCK_DGRAM) as peer:
            sock.bind(("127.0.0.1", 0))
            peer.bind(("127.0.0.1", 0))
            return run(loop, call(loop, sock, peer.getsockname()))

    same_as_stock(loop, ask)


def test_descriptors_travel_beside_the_bytes(loop, loop_name, unix):
    """`sock_sendmsg` and `sock_recvmsg` are an addition to asyncio."""
    if loop_name == "asyncio":
        pytest.skip("an addition to asyncio")
    near, far = unix
    far.setblocking(False)
    reading, writing = os.pipe()
    space = socket.CMSG_SPACE(4)
    task = loop.create_task(loop.sock_recvmsg(far, 100, space))
    turns(loop, 2)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))]
    assert run(loop, loop.sock_sendmsg(near, [b"by", b"tes"], rights)) == 5
    data, ancillary, flags, _ = run(loop, task)
    assert (data, flags & socket.MSG_CTRUNC) == (b"bytes", 0)
    [(level, kind, packed)] = ancillary
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    received = array.array("i", packed)[0]
    os.write(received, b"through")
    assert os.read(reading, 10) == b"through"
    for fd in (reading, writing, received):
        os.close(fd)


def test_a_message_waits_for_room(loop, loop_name, unix):
    if loop_name == "asyncio":
        pytest.skip("an addition to asyncio")
    near, far = unix
    filled = fill(near)
    task = loop.create_task(loop.sock_sendmsg(near, [b"last"]))
    turns(loop, 3)
    assert not task.done()
    receive_exactly(far, filled)
    assert run(loop, task) == 4
    assert receive_exactly(far, 4) == b"last"


@pytest.mark.parametrize(
    "method", ["sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_accept"]
)
def test_cancelling_what_reads_leaves_no_watcher(loop, unix, listener, method):
    """uvloop#653"""
    near, far = unix
    sock = listener if method == "sock_accept" else near
    argument = {"sock_recv": (1,), "sock_recvfrom": (1,), "sock_accept": ()}.get(method, (bytearray(1),))
    for rounds in (1, 2, 3):
        task = loop.create_task(getattr(loop, method)(sock, *argument))
        turns(loop, rounds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(loop, task)
        assert loop.remove_reader(sock) is False
    if sock is near:
        far.send(b"not lost")
        turns(loop, 2)
        assert run(loop, loop.sock_recv(near, 100)) == b"not lost"


def test_cancelling_sendall_leaves_no_watcher(loop, unix):
    near, _ = unix
    task = loop.create_task(loop.sock_sendall(near, bytes(4_000_000)))
    turns(loop, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    assert loop.remove_writer(near) is False


def test_cancelling_a_connect_leaves_no_watcher(loop, full_listener):
    """uvloop#653: the socket is closed, its number is given out again, the old watcher must not be there."""
    for _ in range(20):
        sock = nonblocking()
        number = sock.fileno()
        task = loop.create_task(loop.sock_connect(sock, full_listener))
        turns(loop, 2)
        assert not task.done()
        task.cancel()
        sock.close()
        with contextlib.suppress(asyncio.CancelledError):
            run(loop, task)
        near, far = unix_pair()
        assert number in (near.fileno(), far.fileno())
        transport, protocol = run(loop, loop.create_connection(asyncio.Protocol, sock=near))
        transport.abort()
        turns(loop, 2)
        far.close()


def test_connects_cancelled_at_random_leave_nothing(loop, listener, full_listener):
    """uvloop#653, aiohappyeyeballs#93, cpython#131728: no RuntimeError of a number that a transport uses."""
    choice = random.Random(653)
    outcomes = []

    async def connect(address):
        sock = nonblocking()
        try:
            await loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        transport.abort()

    async def one():
        task = loop.create_task(connect(choice.choice([listener.getsockname(), full_listener])))
        for _ in range(choice.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        outcomes.append("cancelled" if task.cancelled() else type(task.exception()).__name__)

    async def accept():
        while True:
            accepted, _ = await loop.sock_accept(listener)
            accepted.close()

    async def everything():
        accepting = loop.create_task(accept())
        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(100)))
        accepting.cancel()
        await asyncio.wait([accepting])

    run(loop, everything())
    turns(loop, 3)
    assert len(outcomes) == 1000
    assert set(outcomes) <= {"cancelled", "NoneType"}
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


def test_a_cancelled_receive_gets_nothing_that_the_next_one_wants(loop, unix):
    """Data that arrives in the turn of the cancellation is not swallowed."""
    near, far = unix
    first = loop.create_task(loop.sock_recv(near, 100))
    turns(loop, 2)
    far.send(b"data")
    loop.call_soon(first.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        got = run(loop, first)
        assert got == b"data"
    if first.cancelled():
        assert run(loop, loop.sock_recv(near, 100)) == b"data"


@pytest.mark.parametrize("method", ["sock_recv", "sock_accept"])
def test_what_waits_may_end_after_its_loop(loop, listener, unix, method):
    waiting = loop.sock_recv(unix[0], 1) if method == "sock_recv" else loop.sock_accept(listener)
    waiting.send(None)
    loop.close()
    waiting.close()  # as its end does where nobody cancelled it


def test_wait_for_a_receive_that_times_out(loop, unix):
    near, far = unix
    with pytest.raises(TimeoutError):
        run(loop, asyncio.wait_for(loop.sock_recv(near, 1), 0.01))
    far.send(b"x")
    assert run(loop, loop.sock_recv(near, 1)) == b"x"


@pytest.mark.parametrize(
    "call",
    [
        lambda loop, sock: loop.sock_recv(sock, 1),
        lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
        lambda loop, sock: loop.sock_recvfrom(sock, 1),
        lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1)),
        lambda loop, sock: loop.sock_sendall(sock, b"x"),
        lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
        lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 9)),
        lambda loop, sock: loop.sock_accept(sock),
    ],
    ids=["recv", "recv_into", "recvfrom", "recvfrom_into", "sendall", "sendto", "connect", "accept"],
)
@pytest.mark.parametrize("fault", ["blocking", "closed", "not a socket", "used by a transport"])
def test_wrong_sockets_are_refused_as_on_stock_asyncio(loop, call, fault):
    loop.set_debug(True)

    def refused(loop):
        near, far = tcp_pair()
        transport = None
        try:
            sock = near
            if fault == "blocking":
                near.setblocking(True)
                far.send(b"x")
            elif fault == "closed":
                near.close()
            elif fault == "not a socket":
                sock = "socket"
            else:
                transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=near))
            result = outcome(lambda: run(loop, call(loop, sock)))
            # The text names the transport in a form of its own.
            return result[0], result[1].split(" is used by transport")[0]
        finally:
            if transport is not None:
                transport.abort()
                turns(loop, 3)
            near.close()
            far.close()

    with stock_loop() as stock:
        stock.set_debug(True)
        expected = refused(stock)
    assert refused(loop) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda loop, sock: loop.sock_recv(sock, -1),
        lambda loop, sock: loop.sock_recv(sock, "1"),
        lambda loop, sock: loop.sock_recv_into(sock, b"read only"),
        lambda loop, sock: loop.sock_recv_into(sock, None),
        lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1), 5),
        lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(1), -5),
        lambda loop, sock: loop.sock_sendall(sock, "text"),
        lambda loop, sock: loop.sock_sendall(sock, None),
        lambda loop, sock: loop.sock_sendto(sock, b"x", "nowhere"),
        lambda loop, sock: loop.sock_connect(sock, "nowhere"),
        lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1",)),
        lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 70000)),
        lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", -1)),
        lambda loop, sock: loop.sock_connect(sock, None),
        lambda loop, sock: loop.sock_accept(sock),
    ],
    ids=range(15),
)
def test_wrong_arguments_are_refused_as_on_stock_asyncio(loop, call):
    def refused(loop):
        near, far = tcp_pair()
        far.send(b"x")
        try:
            return run(loop, call(loop, near))
        finally:
            near.close()
            far.close()

    same_as_stock(loop, refused)


def test_numbers_of_closed_sockets_are_not_touched(loop, no_leaks):
    """A thousand short connections by hand: no descriptor more, none less."""
    before = descriptors()

    async def rounds():
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            for _ in range(300):
                sock = nonblocking()
                _, (accepted, _) = await asyncio.gather(
                    loop.sock_connect(sock, server.getsockname()), loop.sock_accept(server)
                )
                await loop.sock_sendall(sock, b"x")
                assert await loop.sock_recv(accepted, 1) == b"x"
                sock.close()
                accepted.close()

    run(loop, rounds())
    assert descriptors() == before


def test_a_number_used_again_is_watched_anew(loop, no_leaks):
    """A registration kept from socket to socket must notice that the number means another one now."""
    number = None
    for _ in range(50):
        near, far = unix_pair()
        assert number in (None, near.fileno())
        number = near.fileno()
        task = loop.create_task(loop.sock_recv(near, 10))
        turns(loop, 2)
        far.send(b"x")
        assert run(loop, task) == b"x"
        near.close()
        far.close()


def test_a_number_used_again_while_its_duplicate_lives_is_watched_anew(loop, no_leaks):
    """uvloop#61: the old description still is in the kernel's set, under the same number."""
    near, far = unix_pair()
    task = loop.create_task(loop.sock_recv(near, 10))
    turns(loop, 2)
    far.send(b"x")
    assert run(loop, task) == b"x"
    number, duplicate = near.fileno(), near.dup()
    near.close()
    second, other = unix_pair()
    assert second.fileno() == number
    far.send(b"for the duplicate")
    task = loop.create_task(loop.sock_recv(second, 10))
    turns(loop, 3)
    assert not task.done()
    other.send(b"y")
    assert run(loop, task) == b"y"
    for sock in (far, duplicate, second, other):
        sock.close()


def test_sendfile_over_a_socket(loop, tcp, tmp_path):
    near, far = tcp
    payload = os.urandom(700_000)
    path = tmp_path / "file"
    path.write_bytes(payload)
    with path.open("rb") as file, received_in_thread(far) as received:
        assert run(loop, loop.sock_sendfile(near, file)) == len(payload)
        near.shutdown(socket.SHUT_WR)
    assert received == [payload]


def test_a_full_socket_is_written_to_when_there_is_room(loop, unix):
    near, far = unix
    filled = fill(near)
    task = loop.create_task(loop.sock_sendall(near, b"end"))
    turns(loop, 2)
    assert not task.done()
    assert receive_exactly(far, filled) == bytes(filled)
    run(loop, task)
    assert far.recv(3) == b"end"


def test_lengths_that_come_behind_long_ones(loop, pair):
    # What a long message is followed by is received to the same place as it: none, less, more than is asked for.
    near, far = pair
    sent = random.Random(9).randbytes(300_000)

    async def receive(length, limit):
        piece, thread = sent[:length], threading.Thread(target=far.sendall, args=(sent[:length],))
        thread.start()
        got = b""
        while len(got) < length:
            more = await loop.sock_recv(near, limit)
            assert type(more) is bytes
            assert 0 < len(more) <= limit
            got += more
        thread.join()
        assert got == piece

    async def receive_all():
        for length in (100_000, 100_000, 1, 100_000, 40_000, 40_000, 0, 300_000):
            for limit in (65_536, 262_144, 1_000_000, 10_000):
                await receive(length, limit)
        far.close()
        assert await loop.sock_recv(near, 65_536) == b""

    run(loop, receive_all())
