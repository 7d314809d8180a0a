"""The `leveret` command."""

import click

from leveret_client import exits
from leveret_client.commands.artifacts import artifacts
from leveret_client.commands.dead import dead
from leveret_client.commands.demo import demo
from leveret_client.commands.drain import worker
from leveret_client.commands.events import events
from leveret_client.commands.group import group
from leveret_client.commands.jobs import cancel, list_jobs, priority, retry, show
from leveret_client.commands.logs import links, logs
from leveret_client.commands.secrets import secret
from leveret_client.commands.submit import submit
from leveret_client.commands.up import up
from leveret_client.commands.validate import validate
from leveret_client.commands.workers import explain, workers


@click.group(epilog=exits.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leveret")
def main() -> None:
    """Leveret: build manifests in; virtual machines, logs and status events out."""


COMMANDS = (
    validate, submit, events, logs, artifacts, links, show, list_jobs, explain, cancel, retry, priority, group, secret,
    workers, worker, dead, up, demo,
)  # fmt: skip
for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
