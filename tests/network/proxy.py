"""A TCP link that can be thin, slow and cut: `python -m tests.network.proxy LISTEN_PORT TARGET_HOST TARGET_PORT`.

Conditions come as lines on standard input: `rate BYTES_PER_S` (0: unlimited; of each direction, shared by all
connections), `delay SECONDS` (each way), `cut`, `heal`. After each line the bytes carried so far are answered as
`UP DOWN`.
"""

import asyncio
import contextlib
import socket
import sys

CHUNK = 16 * 1024
WINDOW = 64 * 1024
"""Bytes under way in a connection and direction: a link has buffers, but not megabytes of them."""


class Direction:
    """One way of the link: a token bucket that all connections share."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.carried = 0
        self._free_at = 0.0

    async def pass_through(self, size: int) -> None:
        """Wait until `size` bytes are through."""
        self.carried += size
        if self.rate:
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now) + size / self.rate
            await asyncio.sleep(self._free_at - now)


class Link:
    """Connections between clients and the target, and the link's conditions."""

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.up, self.down = Direction(), Direction()
        self.delay_s = 0.0
        self.is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side, or the link, ends it."""
        if self.is_cut:
            writer.close()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection(*self.target, limit=WINDOW)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there_writer}
        ways = (
            asyncio.create_task(self._carry(reader, there_writer, self.up)),
            asyncio.create_task(self._carry(there_reader, writer, self.down)),
        )
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, there_writer):
            end.close()
            self._writers.discard(end)

    def cut(self) -> None:
        """End every connection and accept none."""
        self.is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(1, WINDOW // CHUNK))
        delivering = asyncio.create_task(self._deliver(under_way, writer))
        try:
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(CHUNK):
                    await way.pass_through(len(chunk))
                    due = asyncio.get_running_loop().time() + self.delay_s
                    await under_way.put((due, chunk))
                await under_way.join()
        finally:
            delivering.cancel()

    async def _deliver(self, under_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                due, chunk = await under_way.get()
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                writer.write(chunk)
                await writer.drain()
                under_way.task_done()

    def command(self, line: str) -> str:
        """Change the conditions; returns the bytes carried so far, up and down."""
        name, _, value = line.strip().partition(" ")
        if name == "rate":
            self.up.rate = self.down.rate = float(value)
        elif name == "delay":
            self.delay_s = float(value)
        elif name == "cut":
            self.cut()
        elif name == "heal":
            self.is_cut = False
        return f"{self.up.carried} {self.down.carried}"


async def run(port: int, host: str, target_port: int) -> None:
    """Serve until standard input ends."""
    link = Link(host, target_port)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    listening.bind(("127.0.0.1", port))
    server = await asyncio.start_server(link.serve, sock=listening, limit=WINDOW)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    async with server:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            sys.stdout.write(link.command(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
