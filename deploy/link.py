#!/usr/bin/env python3
"""A network that can be cut: forwards TCP until told otherwise.

deploy/link.py HOST:PORT        prints its own port; SIGUSR1 cuts all connections and refuses new ones, SIGUSR2 mends
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys


class Link:
    """Forwards to one address while it is up."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._up = True
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Nothing goes through any more."""
        self._up = False
        for writer in self._open:
            writer.transport.abort()

    def mend(self) -> None:
        """New connections go through again."""
        self._up = True

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways."""
        if not self._up:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._to)
        self._open |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._open -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(1 << 16):
            writer.write(block)
            await writer.drain()
    writer.close()


async def main(address: str) -> None:
    """Forward until killed."""
    host, _, port = address.rpartition(":")
    link = Link(host, int(port))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, link.cut)
    loop.add_signal_handler(signal.SIGUSR2, link.mend)
    server = await asyncio.start_server(link.forward, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
