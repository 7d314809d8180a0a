"""Password hashes as RabbitMQ's definitions want them, so that no definitions document holds a password."""

import base64
import hashlib
import secrets

HASHING_ALGORITHM = "rabbit_password_hashing_sha256"


def password_hash(password: str) -> str:
    """The value of `password_hash` for a user whose `hashing_algorithm` is HASHING_ALGORITHM.

    Base64 of a random salt of 4 bytes and the SHA-256 of salt and UTF-8 password
    (RabbitMQ documentation, "Credentials and Passwords", section "Computing Password Hash").
    Raises ValueError for an empty password, which the broker would never let in.
    """
    if not password:
        raise ValueError("an account needs a password that is not empty")
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode("ascii")
