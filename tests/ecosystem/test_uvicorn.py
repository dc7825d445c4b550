"""uvicorn, as the program it is: ``python -m uvicorn --loop hotloop:new_event_loop``.

The clients here are blocking ones, with no loop: what is tested is the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import signal
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from .conftest import Certificates
from .harness import DEADLINE, LoopUnderTest, Uvicorn, UvicornServers, stopping, wait_until_listening
from .servers.payload import payload

PLAIN = ("--no-date-header", "--no-server-header")


@pytest.fixture(params=["httptools", "h11"])
def http_parser(request: pytest.FixtureRequest) -> str:
    """The HTTP implementation that uvicorn is told to use."""
    return request.param


@pytest.fixture
def server(uvicorn_servers: UvicornServers, loop_under_test: LoopUnderTest, http_parser: str) -> Uvicorn:
    """The plain ASGI application, served."""
    return uvicorn_servers.get(loop_under_test, "asgi_app:app", "--http", http_parser, *PLAIN)


@pytest.fixture
def oracle_server(uvicorn_servers: UvicornServers, oracle: LoopUnderTest, http_parser: str) -> Uvicorn:
    """The same on stock asyncio."""
    return uvicorn_servers.get(oracle, "asgi_app:app", "--http", http_parser, *PLAIN)


def connect(server: Uvicorn) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def client(server: Uvicorn) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE))


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    with connection.getresponse() as response:
        assert response.status == 200
        return response.read()


def test_serves_on_the_loop_it_was_told_to(server: Uvicorn, loop_under_test: LoopUnderTest, http_parser: str) -> None:
    with client(server) as connection:
        answer = json.loads(get(connection, "/which"))
    assert answer["loop"].partition(".")[0] == loop_under_test.package
    assert http_parser in answer["http"]


def test_keeps_a_connection_alive(server: Uvicorn) -> None:
    with client(server) as connection:
        peers = set()
        for _ in range(20):
            peers.add(json.loads(get(connection, "/which"))["peer"])
            assert connection.sock is not None
        assert peers == {connection.sock.getsockname()[1]}


def test_serves_many_connections_at_once(server: Uvicorn) -> None:
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE) for _ in range(100)]
    for connection in connections:
        connection.connect()
    for _ in range(3):
        # All the requests are out before the first response is read.
        for number, connection in enumerate(connections):
            connection.request("POST", "/echo", body=b"%d " % number * 50)
        for number, connection in enumerate(connections):
            with connection.getresponse() as response:
                assert response.read() == b"%d " % number * 50
    for connection in connections:
        connection.close()


def test_answers_http_1_0_and_closes(server: Uvicorn, oracle_server: Uvicorn) -> None:
    answers = []
    for which in (server, oracle_server):
        with connect(which) as sock:
            sock.sendall(b"GET /pieces?count=3&tag=x HTTP/1.0\r\n\r\n")
            answers.append(read_to_end(sock))
    assert b"[x:2][x:2]" in answers[0]
    assert answers[0] == answers[1]


def test_refuses_what_is_not_http(server: Uvicorn) -> None:
    with connect(server) as sock:
        sock.sendall(b"\x16\x03\x01 is no request line\r\n\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")
    with client(server) as connection:
        get(connection, "/which")


# Pipelining: requests that do not wait for responses. Several writes of one response, and several responses, then
# meet in one turn of the loop, and a loop that gathers writes has to keep their order and their framing.


def pipelined_requests() -> bytes:
    requests = []
    for number in range(40):
        match number % 4:
            case 0:
                head = b"GET /pieces?count=4&tag=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number
                requests.append(head)
            case 1:
                body = b"<%d>" % number * number * 20
                head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
                requests.append(head + body)
            case 2:
                head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                chunks = b"".join(b"%x\r\n%s\r\n" % (size, b"c" * size) for size in range(1, number))
                requests.append(head + chunks + b"0\r\n\r\n")
            case _:
                requests.append(b"HEAD /pieces?count=4&tag=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
    requests.append(b"GET /download?size=300000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return b"".join(requests)


def read_to_end(sock: socket.socket) -> bytes:
    received = []
    while piece := sock.recv(1 << 16):
        received.append(piece)
    return b"".join(received)


def exchange(server: Uvicorn, step: int) -> bytes:
    """Send the pipelined requests, `step` bytes at a time, and give all that comes back until the server closes."""
    requests = pipelined_requests()
    with connect(server) as sock, ThreadPoolExecutor(1) as reader:
        received = reader.submit(read_to_end, sock)
        for start in range(0, len(requests), step):
            sock.sendall(requests[start : start + step])
        return received.result(DEADLINE)


@pytest.mark.parametrize("step", [1 << 20, 1000, 17])
def test_pipelined_responses_are_framed_as_on_asyncio(server: Uvicorn, oracle_server: Uvicorn, step: int) -> None:
    """uvloop#631: order and framing of pipelined responses which are written in several pieces."""
    answer = exchange(server, step)
    # What the comparison cannot tell: that there is anything to compare.
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 41
    assert answer.endswith(payload(300_000))
    positions = [answer.index(b"[%d:1]" % number) for number in range(0, 40, 4)]
    assert positions == sorted(positions)
    assert answer == exchange(oracle_server, step)


def test_pipelines_on_many_connections_do_not_mix(server: Uvicorn, oracle_server: Uvicorn) -> None:
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda _: exchange(server, 4000), range(16)))
    assert set(answers) == {exchange(oracle_server, 4000)}


def test_reads_a_large_upload(server: Uvicorn) -> None:
    body = payload(32 << 20)
    with client(server) as connection:
        connection.request("POST", "/digest", body=body)
        answer = json.loads(connection.getresponse().read())
    assert answer == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def test_reads_a_large_chunked_upload(server: Uvicorn) -> None:
    body = payload(8 << 20)
    pieces = (body[start : start + 100_003] for start in range(0, len(body), 100_003))
    with client(server) as connection:
        connection.request(
            "POST", "/digest", body=pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        answer = json.loads(connection.getresponse().read())
    assert answer == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def test_writes_a_large_download(server: Uvicorn) -> None:
    with client(server) as connection:
        assert get(connection, f"/download?size={32 << 20}") == payload(32 << 20)


def test_stops_writing_to_a_client_that_does_not_read(server: Uvicorn) -> None:
    """Flow control: more than the kernel's buffers hold is not taken from the application."""
    size = 96 << 20
    with client(server) as connection, client(server) as other:
        connection.request("GET", f"/download?size={size}&tag=slow")
        with connection.getresponse() as response:
            received = bytearray(response.read(1))
            for _ in range(50):
                assert json.loads(get(other, "/progress?tag=slow")) < size
            while piece := response.read(1 << 20):
                received += piece
        assert received == payload(size)
        assert json.loads(get(other, "/progress?tag=slow")) == size


def test_notices_a_client_that_goes_away(server: Uvicorn) -> None:
    with client(server) as other:
        with connect(server) as sock:
            sock.sendall(b"GET /never?tag=away HTTP/1.1\r\nHost: x\r\n\r\n")
        assert get(other, "/gone?tag=away") == b"true"


def test_serves_tls(
    uvicorn_servers: UvicornServers, loop_under_test: LoopUnderTest, http_parser: str, certificates: Certificates
) -> None:
    tls = ("--ssl-certfile", str(certificates.chain), "--ssl-keyfile", str(certificates.key))
    server = uvicorn_servers.get(loop_under_test, "asgi_app:app", "--http", http_parser, *PLAIN, *tls)
    body = payload(4 << 20)
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, timeout=DEADLINE, context=certificates.client_context()
    )
    with closing(connection):
        assert json.loads(get(connection, "/which"))["loop"].partition(".")[0] == loop_under_test.package
        connection.request("POST", "/echo", body=body)
        assert connection.getresponse().read() == body
        assert get(connection, f"/download?size={len(body)}") == body
    # Somebody who is refused, or does not speak TLS at all, must not disturb the others.
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(connect(server), server_hostname="127.0.0.1").close()
    with connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not read_to_end(sock).startswith(b"HTTP/")
    with closing(
        http.client.HTTPSConnection("127.0.0.1", server.port, timeout=DEADLINE, context=certificates.client_context())
    ) as again:
        get(again, "/which")


# The stop. uvicorn ends as a program does that does not handle the signal: by the signal itself for SIGTERM, and after
# a KeyboardInterrupt, which its command line takes for a normal end, for SIGINT.
EXIT_CODES = {signal.SIGINT: 0, signal.SIGTERM: -signal.SIGTERM}


@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_signal_stops_an_idle_server(
    loop_under_test: LoopUnderTest, http_parser: str, number: signal.Signals
) -> None:
    with stopping(Uvicorn(loop_under_test, "asgi_app:app", "--http", http_parser)) as server:
        with client(server) as connection:
            get(connection, "/which")
            # The connection stays open: an idle one does not hold the server up.
            assert server.stop(number) == EXIT_CODES[number]
            assert connection.sock.recv(1) == b""
        server.wait_for("lifespan.startup")
        server.wait_for("lifespan.shutdown")
        server.wait_for("Finished server process")
        with pytest.raises(ConnectionRefusedError):
            connect(server)


@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_signal_lets_a_running_request_finish(
    loop_under_test: LoopUnderTest, http_parser: str, number: signal.Signals
) -> None:
    body = payload(1 << 20)
    with stopping(Uvicorn(loop_under_test, "asgi_app:app", "--http", http_parser)) as server:
        with connect(server) as sock:
            sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            sock.sendall(body[:1000])
            server.wait_for("upload has begun")
            server.send_signal(number)
            server.wait_for("Waiting for connections to close")
            with pytest.raises(ConnectionRefusedError):
                connect(server)
            sock.sendall(body[1000:])
            answer = read_to_end(sock)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n%d" % len(body))
        assert server.wait() == EXIT_CODES[number]
        assert "Traceback" not in server.output
        server.wait_for("lifespan.shutdown")


def test_a_second_interrupt_stops_without_waiting(loop_under_test: LoopUnderTest, http_parser: str) -> None:
    with stopping(Uvicorn(loop_under_test, "asgi_app:app", "--http", http_parser)) as server:
        with connect(server) as sock:
            sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
            server.wait_for("upload has begun")
            server.send_signal(signal.SIGINT)
            server.wait_for("Waiting for connections to close")
            server.send_signal(signal.SIGINT)
        # From Python 3.12.1 on, `Server.wait_closed` waits for the connection all the same: hence it is closed here.
        assert server.wait() == 0
        assert "lifespan.shutdown" not in server.output


def test_serves_a_unix_socket(loop_under_test: LoopUnderTest, http_parser: str, short_tmp: str) -> None:
    path = f"{short_tmp}/uvicorn"
    with stopping(Uvicorn(loop_under_test, "asgi_app:app", "--http", http_parser, uds=path)) as server:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(path)
            sock.sendall(b"GET /download?size=100000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_to_end(sock).endswith(payload(100_000))
        assert server.stop() == -signal.SIGTERM


def test_workers_share_a_socket(loop_under_test: LoopUnderTest, http_parser: str) -> None:
    """``--workers``: the loop is made in spawned processes, on a socket that the parent bound."""
    with stopping(Uvicorn(loop_under_test, "asgi_app:app", "--http", http_parser, "--workers", "2")) as server:
        server.wait_for_times("Application startup complete", 2)
        wait_until_listening(server, server.port)
        for _ in range(10):
            with client(server) as connection:
                assert json.loads(get(connection, "/which"))["loop"].partition(".")[0] == loop_under_test.package
        server.stop(signal.SIGINT)
        assert server.output.count("lifespan.shutdown") == 2


def test_answers_a_client_on_the_same_kind_of_loop(server: Uvicorn, loop_under_test: LoopUnderTest) -> None:
    """Many pipelines at once, from asyncio's streams."""

    async def pipeline(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(20):
            writer.write(b"GET /pieces?count=2&tag=%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        writer.write(b"GET /pieces?count=2&tag=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % number)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def main() -> list[bytes]:
        return await asyncio.gather(*(pipeline(number) for number in range(50)))

    for number, answer in enumerate(loop_under_test.run(main())):
        assert answer.count(b"[%d:1]" % number) == 21
