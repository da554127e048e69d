"""Where sources lie: a local directory, an object store, a web server, a Hugging Face hub."""

from pathlib import Path

from mesh.checkpoint.origin import Origin
from mesh.checkpoint.origins.address import Address, Scheme, parse
from mesh.checkpoint.origins.local import LocalOrigin


def open_origin(address: str | Address) -> Origin:
    """The origin at an address, as it is from now on: open another one to see changes. Close it at the end.

    Raises BadAddress for one that cannot be, and what reading raises where it takes a look to begin with.
    """
    place = parse(address) if isinstance(address, str) else address
    match place.scheme:
        case Scheme.FILE:
            return LocalOrigin(Path(place.path))
        case Scheme.HF:
            from mesh.checkpoint.origins.hub import HubOrigin  # noqa: PLC0415 - half a second, for those who need it

            return HubOrigin(place)
        case Scheme.HTTP | Scheme.HTTPS:
            from mesh.checkpoint.origins.objects import WebOrigin  # noqa: PLC0415

            return WebOrigin(place)
        case _:
            from mesh.checkpoint.origins.objects import ObjectOrigin  # noqa: PLC0415

            return ObjectOrigin(place)
