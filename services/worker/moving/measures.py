"""What a worker counts of moves."""

from prometheus_client import Counter, Histogram

MOVES = Counter(
    "whimbrel_worker_moves_total",
    "Moves at this end, source or target, by how and how that ended: sent or granted, or why not.",
    ["end", "kind", "outcome"],
)
BYTES = Counter("whimbrel_worker_move_bytes_total", "Bytes of requests that move.", ["end"])
SECONDS = Histogram(
    "whimbrel_worker_move_seconds",
    "From when a target is asked until it is ready; of a source, until everything has been written there.",
    ["end"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
