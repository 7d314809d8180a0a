"""An observer of events that owes nothing to Leveret: plain `pika` in a thread of its own, and a file.

One line for each message it was given: {"type": …, "body": …}. It acks what it has written down, so its file holds
every message that its queue ever took, some of them twice.
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

#: Seconds between looks at whether to stop, and between tries to reach the broker.
_TICK = 0.2
_END_LIMIT = 30.0
#: Losing the broker is what it is here for.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class PlainObserver:
    """Reads `queue`, declared and bound by `declare`, until stopped."""

    def __init__(self, url: str, queue: str, file: Path) -> None:
        self._url = url
        self._queue = queue
        self._file = file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"observer of {queue}", daemon=True)
        #: What ended the thread, other than `stop`.
        self.fault: BaseException | None = None

    def declare(self, exchange: str) -> None:
        """Make the durable queue that takes everything from `exchange`."""
        with self._connected() as channel:
            channel.queue_declare(self._queue, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(self._queue, exchange, "#")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[dict[str, Any]]:
        """Read the queue to its end, stop, and give what the file holds: type and parsed body of each message."""
        self._stop.set()
        self._thread.join(_END_LIMIT)
        assert not self._thread.is_alive(), "the observer did not come to its queue's end"
        if self.fault is not None:
            raise self.fault
        lines = self._file.read_text().splitlines()
        return [{"type": line["type"], **json.loads(line["body"])} for line in map(json.loads, lines)]

    def _run(self) -> None:
        try:
            with self._file.open("a") as file:
                while not self._read(file):
                    self._stop.wait(_TICK)
        except BaseException as fault:
            self.fault = fault

    def _read(self, file: Any) -> bool:
        """Read until the connection is lost (False), or stopped and nothing is left (True)."""
        try:
            with self._connected() as channel:
                channel.basic_qos(prefetch_count=100)
                for method, properties, body in channel.consume(self._queue, inactivity_timeout=_TICK):
                    if method is not None:
                        file.write(json.dumps({"type": properties.type, "body": body.decode()}) + "\n")
                        file.flush()
                        channel.basic_ack(method.delivery_tag)
                    elif self._stop.is_set():
                        return True
        except (pika.exceptions.AMQPError, AMQPConnectorException, OSError):
            return False
        return False

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        parameters = pika.URLParameters(self._url)
        parameters.socket_timeout = parameters.stack_timeout = 5
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()
