"""Workers where a replica runs a few requests that its model's other replicas could take: small holes, of which moves
make a large one."""

from collections.abc import Iterator
from itertools import islice

from policy.view import View
from policy.worth import spare

MOST = 8  # models that are looked at for one that waits for memory


def spare_workers(view: View) -> Iterator[str]:
    """Of the models that have had more than they need for longest, where the replica is that they can do without
    first. An idle one needs no moves."""
    for model in islice(view.surplus_since_s, MOST):
        entry = view.cluster.models.get(model)
        spot = spare(view.up(entry), view) if entry else None
        seat = view.replicas.seat(spot) if spot else None
        if seat and view.busy(seat):
            yield seat.member.id
