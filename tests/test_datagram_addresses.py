"""Datagram transports: addresses in and out, of every family."""

from __future__ import annotations

import contextlib
import socket

import pytest
from datagram_harness import bound, opened

from harness import close, outcome, run, same_trace_as_stock, turns

# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_datagram_comes_with_the_address_that_a_socket_would_give(loop, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    transport, protocol = opened(loop, local_addr=(host, 0))
    with socket.socket(family, socket.SOCK_DGRAM) as far:
        far.bind((host, 0))
        far.settimeout(20)
        for data in [b"one", b"two"]:
            far.sendto(data, transport.get_extra_info("sockname"))
        run(loop, protocol.wait_received(2))
        assert protocol.received == [(b"one", far.getsockname()), (b"two", far.getsockname())]
        address = protocol.received[0][1]
        assert [type(part) for part in address] == [type(part) for part in far.getsockname()]
        # Back to the very object, and to one that is equal.
        transport.sendto(b"back", address)
        transport.sendto(b"again", (*far.getsockname(),))
        transport.sendto(b"short", far.getsockname()[:2])
        assert [far.recvfrom(100) for _ in range(3)] == [
            (data, transport.get_extra_info("sockname")) for data in [b"back", b"again", b"short"]
        ]
    close(loop, transport)


def test_many_peers_are_told_apart(loop):
    transport, protocol = bound(loop)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(150)]
        for round_ in range(3):
            for number, peer in enumerate(peers):
                peer.sendto(b"%d %d" % (round_, number), transport.get_extra_info("sockname"))
            run(loop, protocol.wait_received(150))
            for data, address in protocol.received:
                transport.sendto(data, address)
            got, protocol.received = protocol.received, []
            for number, peer in enumerate(peers):
                assert peer.recv(100) == b"%d %d" % (round_, number)
                assert got[number] == (b"%d %d" % (round_, number), ("127.0.0.1", peer.getsockname()[1]))
    close(loop, transport)


def test_a_scope_and_a_flow_are_part_of_the_peer(loop):
    """uvloop#108, zuvloop#19"""

    def scenario(loop, trace):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
            far.bind(("::1", 0))
            far.settimeout(20)
            port = far.getsockname()[1]
            transport, _ = opened(loop, remote_addr=("::1", port))
            for address in [
                ("::1", port),
                ("::1", port, 0),
                ("::1", port, 0, 0),
                ("::1", port, 0, 1),
                ("::1", port, 7),
            ]:
                text, name = outcome(lambda address=address: transport.sendto(b"x", address))
                trace.append(f"{text} {name.replace(str(port), 'port')}")
            trace.append(str(far.recv(10)))
            close(loop, transport)

    same_trace_as_stock(loop, scenario)


def test_an_unconnected_endpoint_sends_with_scope_and_flow(loop, unhandled):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far:
        far.bind(("::1", 0))
        far.settimeout(20)
        transport, protocol = opened(loop, local_addr=("::1", 0))
        transport.sendto(b"x", (*far.getsockname()[:2], 5, 1))
        assert far.recv(10) == b"x"
        transport.sendto(b"x", (*far.getsockname()[:2], 1 << 20))
        # A flow has 20 bits.
        error = unhandled.pop()
        assert error["message"] == "Fatal write error on datagram transport"
        assert isinstance(error["exception"], OverflowError)
        turns(loop, 3)
        assert transport.is_closing()
        assert protocol.errors == []


@pytest.mark.parametrize("name", [b"\0hotloop-test-far", b"\0hotloop\0test\0far\0", "\0hotloop-text"])
def test_abstract_addresses_keep_their_length_and_zeros(loop, name):
    """uvloop#196, zuvloop#86"""
    encoded = name.encode() if isinstance(name, str) else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(name)
        far.settimeout(20)
        transport, protocol = opened(loop, local_addr=b"\0hotloop-test-near".decode(), family=socket.AF_UNIX)
        transport.sendto(b"x", name)
        data, address = far.recvfrom(10)
        assert (data, address) == (b"x", b"\0hotloop-test-near")
        far.sendto(b"y", address)
        assert run(loop, protocol.wait_received(1)) == [(b"y", encoded)]
        transport.sendto(b"z", protocol.received[0][1])
        assert far.recv(10) == b"z"
        close(loop, transport)


def test_unix_datagrams_by_path(loop, tmp_path):
    """uvloop#196"""
    near, far_path = str(tmp_path / "near"), str(tmp_path / "f\u00e4r")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.bind(far_path)
        far.settimeout(20)
        transport, protocol = opened(loop, local_addr=near, family=socket.AF_UNIX)
        far.sendto(b"x", near)
        assert run(loop, protocol.wait_received(1)) == [(b"x", far_path)]
        transport.sendto(b"y", far_path)
        assert far.recvfrom(10) == (b"y", near)
        close(loop, transport)


def test_a_sender_without_a_name_is_none(loop, tmp_path):
    """uvloop git 2020-04"""
    near = str(tmp_path / "near")
    transport, protocol = opened(loop, local_addr=near, family=socket.AF_UNIX)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
        far.sendto(b"x", near)
    assert run(loop, protocol.wait_received(1)) == [(b"x", None)]
    close(loop, transport)


def test_a_pair_of_unix_sockets_talks_without_names(loop, loop_name, request, unix_datagrams):
    """uvloop#304"""
    if loop_name == "asyncio":
        request.applymarker(
            pytest.mark.xfail(reason="stock asyncio takes a peer without a name for none and sends nowhere")
        )
    near, far = unix_datagrams
    transport, protocol = opened(loop, sock=near)
    far.send(b"x")
    assert run(loop, protocol.wait_received(1)) == [(b"x", None)]
    try:
        transport.sendto(b"y")
        assert far.recv(10) == b"y"
    finally:
        close(loop, transport)


def test_long_unix_datagrams_are_whole(loop, unix_datagrams):
    near, far = unix_datagrams
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    transport, protocol = opened(loop, sock=near)
    sizes = [1, 65536, 65537, 150_000, 2]
    for size in sizes:
        far.send(bytes(size))
    run(loop, protocol.wait_received(len(sizes)))
    assert [len(data) for data, _ in protocol.received] == sizes
    close(loop, transport)
