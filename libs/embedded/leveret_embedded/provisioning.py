"""The SQL that makes databases and roles: pure text, for whoever holds a superuser's connection.

A service's role may connect to one database and make a schema of its own there; what is not its own it cannot read.
"""

import re

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def identifier(name: str) -> str:
    """`name`, quoted. Raises ValueError unless it is a plain lower-case name of at most 63 characters."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain PostgreSQL name: use lower-case letters, digits and underscores")
    return f'"{name}"'


def literal(text: str) -> str:
    """`text` as an SQL string. Raises ValueError for a NUL, which PostgreSQL cannot hold."""
    if "\0" in text:
        raise ValueError("a PostgreSQL string cannot hold a NUL character")
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def create_database(name: str) -> list[str]:
    """Statements, each outside a transaction, that make a database which only granted roles may enter."""
    quoted = identifier(name)
    return [f"CREATE DATABASE {quoted}", f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC"]


def create_role(name: str) -> str:
    """The statement that makes a role that may log in."""
    return f"CREATE ROLE {identifier(name)} LOGIN"


def set_password(role: str, password: str) -> str:
    """The statement that gives a role its password."""
    return f"ALTER ROLE {identifier(role)} PASSWORD {literal(password)}"


def admit(role: str, database: str) -> str:
    """The statement that lets a role enter a database and make its own schema there."""
    return f"GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {identifier(database)} TO {identifier(role)}"
