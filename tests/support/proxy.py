"""A TCP proxy whose connections a test can cut or hold up: what a network does to a broker's clients."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Forwards connections to one address; `cut` ends those that are open, `silent` lets nothing through."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()
        self._passes.set()
        self.port = 0

    def url(self, direct: str) -> str:
        """`direct` with the proxy's address in place of its own."""
        parts = urlsplit(direct)
        account = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{account}@127.0.0.1:{self.port}"))

    def cut(self) -> int:
        """End all open connections; how many there were."""
        writers = list(self._open)
        for writer in writers:
            writer.transport.abort()
        return len(writers) // 2

    @contextmanager
    def silent(self) -> Iterator[None]:
        """For the length of the block nothing comes through, and neither end is told. Then all of it does."""
        self._passes.clear()
        try:
            yield
        finally:
            self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes.wait()
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except ConnectionError:
            writer.transport.abort()
            return
        self._open |= {writer, there_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer))
                group.create_task(self._pump(there_reader, writer))
        finally:
            self._open -= {writer, there_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[Proxy]:
    """A proxy to the host and port of `url` for the length of the block."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    proxy = Proxy(parts.hostname, parts.port or 5672)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        async with asyncio.timeout(10):
            await server.wait_closed()
