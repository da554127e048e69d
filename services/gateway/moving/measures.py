"""What is counted of moves."""

from prometheus_client import Counter, Histogram

from mesh.moves import Moved

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
MOVES = Counter(
    "whimbrel_moves_total",
    "Relocations of running requests, by how, why, and how that ended.",
    ["kind", "reason", "outcome"],
)
GAPS = Histogram(
    "whimbrel_move_gap_seconds",
    "From a moved answer's last token before to its first one after, the longest of a request's.",
    ["kind"],
    buckets=SECONDS,
)
TOOK = Histogram("whimbrel_move_seconds", "From a relocation to its last grant.", ["kind"], buckets=(*SECONDS, 30, 60))


def count(outcome: Moved, reason: str) -> None:
    """A relocation has ended."""
    kind = str(outcome.kind or "")
    MOVES.labels(kind, reason, outcome.failure_reason.lower() or "moved").inc()
    if outcome.moved:
        GAPS.labels(kind).observe(outcome.gap_s)
        TOOK.labels(kind).observe(outcome.took_s)
