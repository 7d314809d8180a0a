"""The `leveret` command."""

import click

from leveret_client import exits
from leveret_client.commands.demo import demo
from leveret_client.commands.events import events
from leveret_client.commands.jobs import cancel, list_jobs, show
from leveret_client.commands.logs import logs
from leveret_client.commands.submit import submit
from leveret_client.commands.up import up
from leveret_client.commands.validate import validate


@click.group(epilog=exits.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leveret")
def main() -> None:
    """Leveret: build manifests in; virtual machines, logs and status events out."""


for command in (validate, submit, events, logs, show, list_jobs, cancel, up, demo):
    main.add_command(command)

if __name__ == "__main__":
    main()
