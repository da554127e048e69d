"""What a worker counts of moves."""

from prometheus_client import Counter

MOVES = Counter(
    "whimbrel_worker_moves_total",
    "Moves at this end of them, source or target, by how and how that ended: sent or granted, abandoned, or why not.",
    ["end", "kind", "outcome"],
)
BYTES = Counter("whimbrel_worker_move_bytes_total", "Bytes of requests that came from other workers, and are written.")
SECONDS = Counter(
    "whimbrel_worker_move_seconds_total",
    "Time that moves took at this end: until all was written there, or from their announcement until they were over.",
    ["end", "kind"],
)
SOURCE, TARGET = "source", "target"
SENT, GRANTED, ABANDONED = "sent", "granted", "abandoned"


def ended(end: str, kind: str, outcome: str, took_s: float) -> None:
    """A move is over at this end."""
    MOVES.labels(end, kind, outcome.lower()).inc()
    SECONDS.labels(end, kind).inc(took_s)
