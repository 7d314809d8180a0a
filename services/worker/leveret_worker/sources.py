"""A manifest's sources, cloned in the guest: from the worker's mirror where it has them, else over the network."""

from contextlib import aclosing

from leveret_proto.manifest import Source
from leveret_proto.messages import Reason
from leveret_worker.commands import Commands
from leveret_worker.masked_output import MaskedOutput
from leveret_worker.mirror import Mirror, MirrorError
from leveret_worker.outcome import failed

#: Where a mirrored source's bundle lies in the guest while it is cloned.
_BUNDLE = ".leveret-source.bundle"


async def clone(commands: Commands, log: MaskedOutput, source: Source, mirror: Mirror) -> None:
    """Clone one source into the build user's home. Raises BuildFailed."""
    profile = commands.guest.profile
    if source.scm not in profile.version_control:
        raise failed(Reason.SETUP_FAILED, f"source {source.text}: this guest has no {source.scm}")
    await log.say(f"cloning {source.url}")
    origin = source.url
    try:
        bundle = mirror.bundle(source.url) if source.scm == "git" else None
        if bundle is not None:
            await log.say("from the worker's source mirror")
            origin = f"{profile.home}/{_BUNDLE}"
            async with aclosing(bundle):
                await commands.guest.api.write_file(origin, bundle, user=profile.user)
    except MirrorError as error:
        raise failed(Reason.SETUP_FAILED, f"source {source.text}: {error}") from error
    words = ["/bin/sh", "-euc", _CLONE[source.scm], "clone", origin, source.url, source.directory, source.ref or ""]
    await commands.set_up(log, f"cloning {source.url}", words, user=profile.user)


#: Scripts for `/bin/sh -eu`; $1: where to clone from, $2: the source's own address, $3: directory, $4: ref or nothing.
#: Hosts are not checked, as on builds.sr.ht: a fresh machine knows none.
_CLONE = {
    "git": """
        export GIT_SSH_COMMAND='ssh -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no'
        git clone ${4:+--no-checkout} -- "$1" "$3"
        if [ "$1" != "$2" ]; then rm -f -- "$1"; git -C "$3" remote set-url origin "$2"; fi
        cd "$3"
        if [ -n "$4" ]; then git checkout -q "$4" --; fi
        git submodule update --init --recursive
    """,
    "hg": """
        hg clone -e 'ssh -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no' -- "$1" "$3"
        if [ -n "$4" ]; then cd "$3"; hg update -y -- "$4"; fi
    """,
}
