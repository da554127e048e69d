"""Where a replica is, or will be."""

from typing import NamedTuple


class Spot(NamedTuple):
    """One version of a model on a worker."""

    worker_id: str
    model: str
    digest: str
