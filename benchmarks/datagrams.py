"""In-process rows: datagrams, many at a time.

They are run and reported with those of `benchmarks.scheduling`.
"""

from __future__ import annotations

import asyncio
from typing import Any

Loop = asyncio.AbstractEventLoop

#: Datagrams sent at a time. Those of one time fit into a socket's usual buffer, so that none is lost.
MANY = 64
#: How often so many are sent.
TIMES = 500
#: The size of a packet of QUIC's, in bytes.
SIZE = 1200


class Receiver(asyncio.DatagramProtocol):
    """Knows when as many datagrams as were sent at a time have come, one by one or several at a time."""

    def __init__(self) -> None:
        self.received = 0
        self.all_came = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.count([data])

    def datagrams_received(self, datagrams: list[tuple[bytes, Any]]) -> None:
        self.count([data for data, _ in datagrams])

    def count(self, datagrams: list[bytes]) -> None:
        self.received += len(datagrams)
        if self.received % MANY == 0:
            self.all_came.set()


def udp_many(loop: Loop) -> int:
    """Datagrams of 1,200 bytes that one endpoint sends another, 64 at a time, by whatever the loop has for that."""

    async def talk() -> None:
        where = ("127.0.0.1", 0)
        receiving, receiver = await loop.create_datagram_endpoint(Receiver, local_addr=where)
        sending, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=where)
        to = receiving.get_extra_info("sockname")
        datagrams = [(bytes([number]) * SIZE, to) for number in range(MANY)]
        for _ in range(TIMES):
            if hasattr(sending, "sendto_many"):
                sending.sendto_many(datagrams)
            else:
                for data, address in datagrams:
                    sending.sendto(data, address)
            await receiver.all_came.wait()
            receiver.all_came.clear()
        sending.close()
        receiving.close()
        await asyncio.sleep(0)

    loop.run_until_complete(talk())
    return MANY * TIMES
