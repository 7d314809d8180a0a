"""The `leveret-notifier` command."""

import click

from leveret_runtime.service import command, require

require("notifier", "aiohttp", "aiosmtplib", "asyncpg", "nacl", "prometheus_client")

from leveret_notifier.config import NotifierConfig  # noqa: E402
from leveret_notifier.service import serve  # noqa: E402
from leveret_notifier.signing import Signer, new_seed  # noqa: E402


def _print_new_key(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        seed = new_seed()
        click.echo(f"signing_key: {seed}\npublic key:  {Signer(seed).public_key}")
        context.exit()


main = command("notifier", NotifierConfig, serve)
main.params.append(
    click.Option(
        ["--new-key"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_new_key,
        help="Print a new signing key and its public key, and stop.",
    )
)

if __name__ == "__main__":
    main()
