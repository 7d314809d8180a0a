"""A subscriber as a process of its own, which a test kills: `python -m … URL OWNER FILE`.

It keeps what it heard and its cursor in one SQLite transaction, so that nothing is handled twice.
"""

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from leveret_client import Client, Cursor, resuming
from leveret_proto.messages import Event, NumberedEvent

LIMIT = 15.0


class Ledger:
    """Rows of what was heard, and the cursor behind them."""

    def __init__(self, path: str | Path) -> None:
        # used in a thread, by one at a time
        self._on = sqlite3.connect(path, check_same_thread=False, timeout=LIMIT)
        self._on.execute("create table if not exists heard (id integer primary key, type, job, source, seq)")
        self._on.execute("create table if not exists place (one integer primary key, cursor)")
        self._held: list[Event] = []

    def hold(self, event: Event) -> None:
        """Have `event` written with the next cursor."""
        self._held.append(event)

    def load(self) -> Cursor | None:
        row = self._on.execute("select cursor from place").fetchone()
        return None if row is None else Cursor.parse(row[0])

    def save(self, cursor: Cursor) -> None:
        held, self._held = self._held, []
        with self._on:
            for event in held:
                numbered = (
                    (event.facts.job, event.source, event.seq)
                    if isinstance(event, NumberedEvent)
                    else (None, None, None)
                )
                self._on.execute(
                    "insert into heard (type, job, source, seq) values (?, ?, ?, ?)", (event.TYPE, *numbered)
                )
            self._on.execute("insert or replace into place values (1, ?)", (cursor.dump(),))

    def close(self) -> None:
        self._on.close()

    def heard(self) -> list[tuple[int, str, int]]:
        """Job, source and seq of each numbered event, in the order they came."""
        return self._on.execute("select job, source, seq from heard where job is not null order by id").fetchall()


async def main(url: str, owner: str, path: str) -> None:
    with closing(Ledger(path)) as ledger:
        async with resuming(lambda: Client(url, owner, limit=LIMIT), ledger) as arrivals:
            async for arrival in arrivals:
                ledger.hold(arrival.event)
                await arrival.commit()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
