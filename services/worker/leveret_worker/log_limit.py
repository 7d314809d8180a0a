"""How much of a log is published: all up to a limit, then the last MiB and the number of bytes between. Pure."""

#: Bytes kept of the end of a log that has passed its limit. Twice as many are held meanwhile.
LAST = 1024 * 1024


class JobLimit:
    """What all logs of a job may publish together before they are cut."""

    def __init__(self, limit: int) -> None:
        """`limit`: in bytes."""
        self.limit = limit
        self.left = limit


class LogLimit:
    """The limit of one log, and what it holds back."""

    def __init__(self, limit: int, job: JobLimit) -> None:
        """`limit`: in bytes. Past it, or past what is left of the job's, live output stops."""
        self._limit = limit
        self._left = limit
        self._job = job
        self._cut = False
        self._line_is_open = False
        #: Bytes held back so far, and at least the last of them.
        self._held_back = 0
        self._last = bytearray()

    def take(self, data: bytes) -> bytes:
        """Give what of `data` is published now, with a line that says so where live output stops."""
        if self._cut:
            self._hold_back(data)
            return b""
        room = min(self._left, self._job.left)
        shown, rest = data[:room], data[room:]
        self._left -= len(shown)
        self._job.left -= len(shown)
        if shown:
            self._line_is_open = not shown.endswith(b"\n")
        if not rest:
            return shown
        self._cut = True
        self._hold_back(rest)
        return shown + self._marker()

    def end(self) -> bytes:
        """Give what is published at the log's end: the last bytes held back, after how many are left out."""
        if not self._cut:
            return b""
        last = bytes(self._last[-LAST:])
        line = f"[leveret] {self._held_back - len(last)} bytes are left out here; the last {len(last)} follow\n"
        return line.encode() + last

    def _marker(self) -> bytes:
        limit = f"{self._job.limit} bytes for all logs" if self._left else f"{self._limit} bytes for a log"
        what = f"from here on only the last {LAST} bytes are kept, and shown at the end"
        return b"\n" * self._line_is_open + f"[leveret] the limit of {limit} is reached; {what}\n".encode()

    def _hold_back(self, data: bytes) -> None:
        self._held_back += len(data)
        self._last += data[-LAST:]
        if len(self._last) > 2 * LAST:
            del self._last[:-LAST]
