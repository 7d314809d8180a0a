"""What intake counts."""

from prometheus_client import Counter, Histogram

from leveret_runtime.metrics import QUICK, REGISTRY

SUBMISSIONS = Counter(
    "leveret_intake_submissions",
    "Submissions by what came of them: accepted, known (accepted before), or the reason of their rejection.",
    ["outcome"],
    registry=REGISTRY,
)
SUBMISSION_SECONDS = Histogram(
    "leveret_intake_submission_seconds",
    "From a submission's delivery to its ack: read, stored, handed on, answered.",
    buckets=QUICK,
    registry=REGISTRY,
)
