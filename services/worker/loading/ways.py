"""The ways that bytes can come from a store, and which is left when one is closed."""

from collections.abc import Mapping
from enum import IntEnum, auto
from types import MappingProxyType

import structlog

from mesh.errors import MeshError
from services.worker.settings import Transport

log = structlog.get_logger()


class Way(IntEnum):
    """How bytes come, the nearest first."""

    MAPPED = auto()  # the store's memory itself
    RING = auto()  # a small part of it, filled again and again
    STREAM = auto()  # gRPC


WAYS: Mapping[Transport, tuple[Way, Way]] = MappingProxyType(
    {
        Transport.AUTO: (Way.MAPPED, Way.STREAM),
        Transport.SHARED: (Way.MAPPED, Way.RING),
        Transport.STREAM: (Way.STREAM, Way.STREAM),
    }
)
"""The first to try, and the last."""
INSTEAD: Mapping[str, Way] = MappingProxyType(
    {"LARGER_THAN_DRAM": Way.RING, "NO_RING": Way.STREAM, "SHARED_MEMORY_UNREACHABLE": Way.STREAM}
)
"""What is left, by the reason of the error."""


def instead(error: MeshError, last: Way) -> Way:
    """The way that is left after an error, which is raised again if there is none."""
    way = INSTEAD.get(error.reason)
    if way is None or way > last:
        raise error
    log.info("the weights do not come from mapped memory", instead=way.name.lower(), why=error.message)
    return way
