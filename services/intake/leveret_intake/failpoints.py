"""The lines at which a test may have intake killed (leveret_runtime.failpoints)."""

BEFORE_COMMIT = "intake.submission.before-commit"
BETWEEN_COMMIT_AND_PUBLISH = "intake.submission.between-commit-and-publish"
BEFORE_ACK = "intake.submission.before-ack"

FAILPOINTS: tuple[str, ...] = (BEFORE_COMMIT, BETWEEN_COMMIT_AND_PUBLISH, BEFORE_ACK)
