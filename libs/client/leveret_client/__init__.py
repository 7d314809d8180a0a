"""The Python client, and the `leveret` command made of it. Everything goes through the broker."""

from leveret_client.client import Client
from leveret_client.errors import (
    ClientError,
    CommandRefused,
    NoAnswer,
    NotAllowed,
    NotFound,
    NotReached,
    SubmissionFailed,
)
from leveret_client.follow import Following, LogBytes
from leveret_client.subscription import LogPiece, Subscription

__all__ = [
    "Client",
    "ClientError",
    "CommandRefused",
    "Following",
    "LogBytes",
    "LogPiece",
    "NoAnswer",
    "NotAllowed",
    "NotFound",
    "NotReached",
    "SubmissionFailed",
    "Subscription",
]
