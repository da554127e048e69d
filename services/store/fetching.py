"""Has units fetched from afar, in a hurry from the moment at which a request begins to wait for them."""

import asyncio
from collections.abc import Callable, Sequence

from mesh.errors import DataLoss
from services.store.catalog import Stored
from services.store.memory import Fetcher, PartMemory
from services.store.turns import Urgency


async def fetch(
    fetcher: Fetcher | None,
    stored: Stored,
    units: Sequence[int],
    views: Sequence[PartMemory] | None,
    *,
    arrived: Callable[[int], None],
    urgency: Urgency,
) -> None:
    """Fetcher.fetch, asked anew for the rest when the units become urgent. Without a fetcher it raises DataLoss."""
    if units and fetcher is None:
        raise DataLoss(
            f"{len(units)} units of checkpoint {stored.manifest.digest} are not on this node; import it again",
            reason="UNITS_MISSING",
        )
    left = dict.fromkeys(units)

    def landed(unit: int) -> None:
        left.pop(unit, None)
        arrived(unit)

    while left and fetcher:
        fetching = asyncio.ensure_future(fetcher.fetch(stored, tuple(left), views, landed, urgent=urgency.urgent))
        await _unless_promoted(fetching, urgency)


async def _unless_promoted(fetching: asyncio.Future[None], urgency: Urgency) -> None:
    """Waits for the fetch; leaves it when it is to be asked for anew. It has let go of all memory on return."""
    promotion = asyncio.ensure_future(urgency.promotion()) if not urgency.urgent else None
    try:
        await asyncio.wait([fetching, *filter(None, [promotion])], return_when=asyncio.FIRST_COMPLETED)
        if fetching.done():
            fetching.result()
    finally:
        for task in filter(None, [fetching, promotion]):
            task.cancel()
        await asyncio.gather(fetching, *filter(None, [promotion]), return_exceptions=True)
