"""Keeping what a guest or QEMU writes for diagnosis, however much it writes."""

import asyncio
import re

LIMIT = 64 * 1024
_BLOCK = 16 * 1024
_PANIC = re.compile(r"(Kernel panic - [^\n]*).*", re.DOTALL)


class BoundedText:
    """The last LIMIT bytes of a stream that is always read to its end, so that its writer never has to wait."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.total = 0
        """Bytes seen."""
        self.complete = asyncio.Event()
        """Set at the stream's end."""

    async def fill_from(self, stream: asyncio.StreamReader) -> None:
        """Read `stream` to its end."""
        while block := await stream.read(_BLOCK):
            self.add(block)
        self.complete.set()

    def add(self, block: bytes) -> None:
        """Take in `block`, dropping the oldest bytes over the limit."""
        self.total += len(block)
        self._kept += block
        del self._kept[: max(0, len(self._kept) - LIMIT)]

    def tail(self, characters: int = 1500) -> str:
        """The end of the text on one printable line: guests write control codes too.

        What a panicking kernel writes after the line that names its panic (registers, calls) would push out the cause.
        """
        text = self._kept.decode(errors="replace")
        text = _PANIC.sub(r"\1", text)[-characters:]
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())
