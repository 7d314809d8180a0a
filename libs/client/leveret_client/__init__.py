"""The Python client, and the `leveret` command made of it. Everything goes through the broker."""

from leveret_client.client import Client
from leveret_client.cursor import Cursor, CursorFile, CursorMemory, CursorStore
from leveret_client.errors import (
    ClientError,
    CommandRefused,
    CursorUnusable,
    DownloadError,
    NoAnswer,
    NotAllowed,
    NotFound,
    NotReached,
    SubmissionFailed,
)
from leveret_client.follow import Following, LogBytes
from leveret_client.resuming import Arrival, Wanted, resuming
from leveret_client.subscription import LogPiece, Subscription

__all__ = [
    "Arrival",
    "Client",
    "ClientError",
    "CommandRefused",
    "Cursor",
    "CursorFile",
    "CursorMemory",
    "CursorStore",
    "CursorUnusable",
    "DownloadError",
    "Following",
    "LogBytes",
    "LogPiece",
    "NoAnswer",
    "NotAllowed",
    "NotFound",
    "NotReached",
    "SubmissionFailed",
    "Subscription",
    "Wanted",
    "resuming",
]
