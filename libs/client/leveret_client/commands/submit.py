"""`leveret submit`: publish a manifest; with `--follow`, watch the build to its end. Or several, as a group."""

import asyncio
from dataclasses import dataclass

import click

from leveret_client import exits
from leveret_client.client import Client
from leveret_client.commands.group import MOST, Closing, show_group, trigger_options, word
from leveret_client.commands.jobs import JOB
from leveret_client.commands.validate import read_manifest
from leveret_client.errors import NoAnswer, NotReached, SubmissionFailed
from leveret_client.follow import Following
from leveret_client.options import Settings, broker_options
from leveret_client.output import LogOutput
from leveret_client.running import run
from leveret_client.watching import follow_on, report, watch
from leveret_proto.base import Visibility
from leveret_proto.ids import message_id as new_message_id
from leveret_proto.manifest import Trigger, render
from leveret_proto.messages import SubmissionAccepted


@dataclass(frozen=True)
class Sent:
    """A manifest with its circumstances. The same `message_id` makes it the same job, however often it is sent."""

    text: bytes
    name: str
    project: str
    note: str | None
    tags: tuple[str, ...]
    visibility: Visibility
    priority: int
    secrets: bool
    depends_on: tuple[int, ...]
    group: str | None
    message_id: str

    async def to(self, client: Client) -> SubmissionAccepted:
        """Submit it. Raises SubmissionFailed."""
        return await client.submit(
            self.text, project=self.project, note=self.note, tags=self.tags, visibility=self.visibility,
            priority=self.priority, secrets=self.secrets, depends_on=self.depends_on, group=self.group,
            message_id=self.message_id,
        )  # fmt: skip


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True), metavar="FILE...")
@click.option("--follow", "-f", is_flag=True, help="Show the log live; the exit status is the build's.")
@click.option("--project", default="default", show_default=True, help="The project it belongs to.")
@click.option("--note", help="A line for people, repeated in every event.")
@click.option("--tag", "tags", multiple=True, help="A label, repeated in every event; may be given again.")
@click.option(
    "--visibility",
    type=click.Choice([str(kind) for kind in Visibility]),
    default=str(Visibility.UNLISTED),
    show_default=True,
    help="Who may see the job.",
)
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher goes first among the owner's jobs.")
@click.option("--no-secrets", is_flag=True, help="Withhold every secret the manifest names.")
@click.option(
    "--after", "depends_on", metavar="JOB", multiple=True, type=JOB, help="Run once JOB succeeded; may be given again."
)
@click.option("--group", callback=word, help="Join this group. Several files are a whole group.")
@trigger_options
@click.option("--message-id", help="Submitting again under the same one gives the same job.")
@broker_options
def submit(
    settings: Settings,
    files: tuple[str, ...],
    follow: bool,
    project: str,
    note: str | None,
    tags: tuple[str, ...],
    visibility: str,
    priority: int,
    no_secrets: bool,
    depends_on: tuple[int, ...],
    group: str | None,
    triggers: tuple[Trigger, ...],
    message_id: str | None,
) -> None:
    """Submit the manifest FILE ('-': standard input).

    Several FILEs need --group, and are that whole group: it ends when all of them have, and --email and --webhook tell
    of that. One FILE without these options joins the group, which `leveret group` closes.
    """
    whole = len(files) > 1 or bool(triggers)
    if whole and group is None:
        raise click.UsageError("several files, --email and --webhook are for a group: give --group NAME.")
    if len(files) > MOST:
        raise click.UsageError(f"{len(files)} files; a group has at most {MOST} jobs.")
    if len(files) > 1 and message_id is not None:
        raise click.UsageError("--message-id names one job; give a single file.")
    if whole and follow:
        raise click.UsageError("--follow watches one job, not a group; `leveret events` shows all of them.")
    manifests = [
        Sent(
            read_manifest(file), "<stdin>" if file == "-" else file, project, note, tags, Visibility(visibility),
            priority, not no_secrets, depends_on, group, message_id or new_message_id(),
        )
        for file in files
    ]  # fmt: skip
    if group is not None and whole:
        closing = Closing(group, triggers, Visibility(visibility), note)
        run(lambda: _submitted_as_group(settings, manifests, closing))
    run(lambda: _followed(settings, manifests[0]) if follow else _submitted(settings, manifests[0]))


async def _submitted_as_group(settings: Settings, manifests: list[Sent], closing: Closing) -> int:
    jobs: list[int] = []
    try:
        async with settings.client() as client:
            for sent in manifests:
                try:
                    accepted = await sent.to(client)
                except SubmissionFailed as failed:
                    refused(settings, sent, failed)
                    _left_open(settings, closing.group, jobs)
                    return exits.FAILED
                _accepted(settings, sent, accepted)
                jobs.append(accepted.job)
            view = await closing.by(client, len(manifests))
    except (NotReached, NoAnswer):
        if len(jobs) < len(manifests):
            _left_open(settings, closing.group, jobs, unanswered=manifests[len(jobs)])
        else:
            _perhaps_open(settings, closing.group, jobs)
        raise
    strangers = [member.job for member in view.jobs if member.job not in jobs]
    if strangers:
        settings.output.say(
            f"leveret: the name {closing.group} is taken by the group of job {strangers[0]}; the jobs run, but their "
            "end as a group is not told: submit under another name",
            "red",
        )
        return exits.FAILED
    if settings.output.terminal or settings.output.as_json:
        show_group(settings.output, view)
    return exits.OK


def _left_open(settings: Settings, group: str, jobs: list[int], *, unanswered: Sent | None = None) -> None:
    """Say how to go on with a group of which only `jobs` came about; `unanswered` may have, too."""
    if not jobs:
        return
    told = (
        f"leveret: group {group} stays open with what was submitted before (jobs {', '.join(map(str, jobs))}); submit "
        "the rest one by one with --group, and close it with `leveret group`"
    )
    if unanswered is not None:
        told += (
            f". Whether {unanswered.name} was taken is not known: with --message-id {unanswered.message_id} it becomes "
            "no second job"
        )
    settings.output.say(told, "yellow")


def _perhaps_open(settings: Settings, group: str, jobs: list[int]) -> None:
    """Say how to go on where all was submitted, and closing the group was not answered."""
    settings.output.say(
        f"leveret: whether group {group} was closed is not known (jobs {', '.join(map(str, jobs))}); `leveret group` "
        f"with --size {len(jobs)} and the same options closes it, and changes nothing if it was",
        "yellow",
    )


async def _submitted(settings: Settings, sent: Sent) -> int:
    async with settings.client() as client:
        try:
            _accepted(settings, sent, await sent.to(client))
        except SubmissionFailed as failed:
            return refused(settings, sent, failed)
    return exits.OK


async def _followed(settings: Settings, sent: Sent) -> int:
    state: Following | None = None
    shown = LogOutput(settings.output)
    try:
        async with settings.client() as client:
            # bound before submitting, so that not even the first event is missed
            subscription = await client.subscribe()
            await subscription.bind_owner(settings.owner, [sent.visibility])
            try:
                accepted = await sent.to(client)
            except SubmissionFailed as failed:
                return refused(settings, sent, failed)
            _accepted(settings, sent, accepted, aside=True)
            state = Following(accepted.job)
            await subscription.bind_tail(sent.visibility, accepted.owner, accepted.job)
            # a job of an earlier submission may have ended long ago: then it is asked about, not waited for
            await follow_on(client, settings, state, shown, None if accepted.known else subscription)
        return report(settings, state)
    except NotReached:
        if state is None:
            raise
        return await watch(settings, state, shown)
    except asyncio.CancelledError:
        shown.break_line()
        if state is not None:
            settings.output.say(f"leveret: the build goes on; `leveret cancel {state.job}` ends it", "yellow")
        raise


def _accepted(settings: Settings, sent: Sent, accepted: SubmissionAccepted, *, aside: bool = False) -> None:
    output = settings.output
    if output.as_json:
        output.document(accepted.TYPE, accepted)
        return
    click.echo(render(accepted.warnings, sent.text, sent.name, color=output.errors.is_terminal), nl=False, err=True)
    known = " (submitted before)" if accepted.known else ""
    if aside:
        output.say(f"job {accepted.job}{known}", "bold")
    elif output.terminal:
        output.line((f"job {accepted.job}", "bold"), known)
    else:
        click.echo(str(accepted.job))


def refused(settings: Settings, sent: Sent, failed: SubmissionFailed) -> int:
    """Show why a submission became no job."""
    output, answer = settings.output, failed.answer
    if output.as_json:
        output.document(answer.TYPE, answer)
    else:
        shown = render(answer.diagnostics, sent.text, sent.name, color=output.errors.is_terminal)
        click.echo(shown, nl=False, err=True)
        output.say(f"leveret: rejected: {answer.message}", "red")
    return exits.FAILED
