"""A service process from start to end: its command line, signals, readiness, exit status.

SIGTERM and SIGINT set the stop event: no new work is taken, what is under way ends, the process exits 0. A second
signal ends it at once.
"""

import asyncio
import faulthandler
import gc
import importlib.util
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import click
import structlog
import uvloop

from leveret_runtime import logging
from leveret_runtime.config import ConfigError, Origins, ServiceConfig, default_file, listed, load
from leveret_runtime.health import HEALTH
from leveret_runtime.systemd import beat_for_ever, notify

log = structlog.get_logger(__name__)

C = TypeVar("C", bound=ServiceConfig)


def command(
    service: str, model: type[C], main: Callable[[C, asyncio.Event], Awaitable[None]], *tools: click.Command
) -> click.Command:
    """Make the console command `leveret-<service>` around `main(config, stop)`.

    `tools`: subcommands that do something else with the same configuration, which they find as the context's `obj`;
    without one the service runs.
    """
    name = f"leveret-{service}"

    @(click.group(name, invoke_without_command=True) if tools else click.command(name))
    @click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="YAML file; else that in the configuration directory.",
    )
    @click.option("--check-config", is_flag=True, help="Read the configuration, say whether it is good, and stop.")
    @click.option("--show-config", is_flag=True, help="Print the configuration in force, secrets hidden, and stop.")
    @click.version_option(package_name="leveret")
    @click.pass_context
    def run(context: click.Context, config: Path | None, check_config: bool, show_config: bool) -> None:
        file = config or default_file(service)
        try:
            read = load(model, file)
        except ConfigError as error:
            for fault in str(error).splitlines():
                click.echo(f"leveret-{service}: {fault}", err=True)
            raise SystemExit(2) from None
        if show_config:
            for line in listed(read, Origins(model, file)):
                click.echo(line)
        if check_config:
            click.echo(f"leveret-{service}: the configuration is good ({file or 'there is no file'})", err=True)
        if check_config or show_config:
            context.exit()
        if context.invoked_subcommand is not None:
            context.obj = read
            return
        logging.configure(service, read.log_level)
        faulthandler.enable()  # SIGABRT, the watchdog's last word, shows where every thread stood
        _calm_the_collector()
        uvloop.run(_run(service, main, read))

    run.help = f"Leveret's {service} service. Reads LEVERET_{service.upper()}_* from the environment."
    if isinstance(run, click.Group):
        for tool in tools:
            run.add_command(tool)
    return run


def _calm_the_collector() -> None:
    """What was loaded stays; and most of what a service makes is gone without the cycle collector's help."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


async def _run(service: str, main: Callable[[C, asyncio.Event], Awaitable[None]], config: C) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            sys.exit(1)
        log.info("stopping")
        HEALTH.stopping()
        notify("STOPPING=1")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    log.info("starting")
    async with _monitor(service, config), asyncio.TaskGroup() as group:
        beats = group.create_task(beat_for_ever(HEALTH))
        await main(config, stop)
        beats.cancel()
    log.info("stopped")


@asynccontextmanager
async def _monitor(service: str, config: ServiceConfig) -> AsyncIterator[None]:
    """Serve metrics and probes for the time of the block, where the configuration says so."""
    if config.monitor_port is None:
        yield
        return
    require(service, "aiohttp", "prometheus_client")
    from leveret_runtime.monitor import monitoring  # only now: whoever has no monitor pays nothing

    async with monitoring(service, HEALTH, config.monitor_host, config.monitor_port):
        yield


def ready(does: str | Callable[[], str]) -> None:
    """Tell systemd, the log and the probes that the service is connected and consuming.

    `does`: what it does, in a few words, for people; a function is asked again with every beat.
    """
    HEALTH.serving(does if callable(does) else lambda: does)
    status = HEALTH.told
    log.info("ready", status=status)  # first: who waits for readiness may read the log then
    notify("READY=1", f"STATUS={status}")


def require(service: str, *modules: str) -> None:
    """Exit 2 where a module of the service's extra is missing, naming the extra."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            click.echo(f"leveret-{service}: {module} is missing; install leveret[{service}]", err=True)
            raise SystemExit(2)
