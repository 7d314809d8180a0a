"""Secrets as a grant carries them, sealed to a worker's session; and something to seal."""

import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

from leveret_proto.messages import SealedSecret, WorkerBeat
from leveret_runtime.sealing import seal

SSH_KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\ns3cret-ssh-key\n-----END OPENSSH PRIVATE KEY-----\n"


def sealed(beat: WorkerBeat, value: bytes, kind: str = "file", **fields: Any) -> SealedSecret:
    """`value`, sealed to the session that `beat` is of."""
    assert beat.public_key is not None
    given = {"uuid": str(uuid4()), "kind": kind, "sealed": seal(value, beat.public_key)}
    return SealedSecret.model_validate(given | fields)


def new_pgp_key(home: Path) -> bytes:
    """A new private key without a passphrase, armoured. `home`: a short path, for gpg's agent listens in it."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    try:
        subprocess.run([*gpg, "--quick-generate-key", "builder@example.org", "ed25519"], check=True, timeout=60)
        export = [*gpg, "--export-secret-keys", "--armor"]
        return subprocess.run(export, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True, timeout=60)
