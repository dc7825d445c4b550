"""Twisted on its asyncio reactor: connections, datagrams, timers, threads, a process and a coroutine of asyncio."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from chosen import answer, new_loop, package_of
from twisted.internet import asyncioreactor

loop = new_loop()
asyncio.set_event_loop(loop)
asyncioreactor.install(loop)

from twisted.internet import defer, endpoints, protocol, reactor, task, threads, utils  # noqa: E402

SIZE = 2 << 20


class Echo(protocol.Protocol):
    """Sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Collecting(protocol.Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.complete: defer.Deferred[None] = defer.Deferred()
        self.lost: defer.Deferred[str] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) == SIZE:
            self.complete.callback(None)

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.lost.callback(reason.type.__name__)


class EchoDatagrams(protocol.DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(datagram[::-1], addr)


class AskDatagrams(protocol.DatagramProtocol):
    def __init__(self, port: int) -> None:
        self.port = port
        self.answered: defer.Deferred[str] = defer.Deferred()

    def startProtocol(self) -> None:
        self.transport.connect("127.0.0.1", self.port)
        self.transport.write(b"datagram")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.answered.callback(datagram.decode())


async def main() -> dict[str, Any]:
    said: dict[str, Any] = {"loop": package_of(asyncio.get_running_loop())}
    factory = protocol.Factory.forProtocol(Echo)
    port = await endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    client = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    echoed = await endpoints.connectProtocol(client, Collecting())
    body = bytes(range(256)) * (SIZE // 256)
    echoed.transport.write(body)
    await echoed.complete
    said["echoed"] = bytes(echoed.received) == body
    echoed.transport.loseConnection()
    said["lost"] = await echoed.lost
    await port.stopListening()
    try:
        await endpoints.connectProtocol(client, Collecting())
    except Exception as error:
        said["refused"] = type(error).__name__

    server = reactor.listenUDP(0, EchoDatagrams(), interface="127.0.0.1")
    asking = AskDatagrams(server.getHost().port)
    socket = reactor.listenUDP(0, asking, interface="127.0.0.1")
    said["datagram"] = await asking.answered
    await defer.maybeDeferred(server.stopListening)
    await defer.maybeDeferred(socket.stopListening)

    order: list[int] = []
    await defer.gatherResults(
        [task.deferLater(reactor, delay / 100, order.append, delay) for delay in (30, 0, 15)]  # type: ignore[arg-type]
    )
    said["timers"] = order
    ticks: list[None] = []
    looping = task.LoopingCall(lambda: ticks.append(None) if len(ticks) < 5 else looping.stop())
    await looping.start(0.001)
    said["ticks"] = len(ticks)
    said["threads"] = await defer.gatherResults([threads.deferToThread(pow, 2, power) for power in range(8)])
    said["called"] = await threads.deferToThread(threads.blockingCallFromThread, reactor, lambda: "from a thread")
    said["process"] = (await utils.getProcessOutput(sys.executable, ["-c", "print(6 * 7)"])).decode()

    async def native() -> str:
        await asyncio.sleep(0.001)
        return "asyncio's"

    said["coroutine"] = await defer.Deferred.fromFuture(asyncio.ensure_future(native()))
    return said


def ended(said: Any) -> None:
    if isinstance(said, dict):
        answer(said)
    else:
        said.printTraceback(sys.stderr)
    reactor.stop()


# Not `callWhenRunning`: that is before the loop runs.
reactor.callLater(0, lambda: defer.ensureDeferred(main()).addBoth(ended))
reactor.run()
