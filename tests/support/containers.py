"""Broker and database from testcontainers, for machines where a Docker engine answers."""

import os
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

RABBITMQ_IMAGE = "rabbitmq:4-management"
POSTGRESQL_IMAGE = "postgres:17"
_PASSWORD = "leveret-test"  # of a container that lives for one test session
_ANSWER_LIMIT = 2
_START_LIMIT = 60.0


def docker_answers() -> bool:
    """Whether a Docker engine answers within two seconds where `DOCKER_HOST`, or nothing, says it is.

    Asked without the docker library, which leaves its socket open when nobody answers.
    """
    parts = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    try:
        with socket.socket(socket.AF_UNIX if parts.scheme == "unix" else socket.AF_INET) as engine:
            engine.settimeout(_ANSWER_LIMIT)
            engine.connect(parts.path if parts.scheme == "unix" else (parts.hostname, parts.port or 2375))
            engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in engine.recv(64)
    except OSError:
        return False


@contextmanager
def rabbitmq_container() -> Iterator[tuple[str, str]]:
    """A broker's administrator URL and the base URL of its management API."""
    from testcontainers.core.container import DockerContainer

    container = (
        DockerContainer(RABBITMQ_IMAGE)
        .with_exposed_ports(5672, 15672)
        .with_env("RABBITMQ_DEFAULT_USER", "admin")
        .with_env("RABBITMQ_DEFAULT_PASS", _PASSWORD)
    )
    with _quiet(), container:
        host = container.get_container_host_ip()
        api = f"http://{host}:{container.get_exposed_port(15672)}"
        _until_http_answers(api)
        yield f"amqp://admin:{_PASSWORD}@{host}:{container.get_exposed_port(5672)}/%2F", api


@contextmanager
def postgresql_container() -> Iterator[str]:
    """A superuser's DSN."""
    from testcontainers.postgres import PostgresContainer

    container = PostgresContainer(POSTGRESQL_IMAGE, username="postgres", password=_PASSWORD, driver=None)
    with _quiet(), container:
        yield container.get_connection_url()


@contextmanager
def _quiet() -> Iterator[None]:
    """testcontainers itself uses names it has deprecated; its warnings are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _until_http_answers(url: str) -> None:
    """RabbitMQ opens its management port last; a broker in a container has no other way to say that it is ready."""
    deadline = time.monotonic() + _START_LIMIT
    while True:
        try:
            urllib.request.urlopen(url, timeout=_ANSWER_LIMIT).close()
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
