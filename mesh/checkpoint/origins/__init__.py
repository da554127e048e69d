"""Where sources lie: a local directory, an object store, a web server, a Hugging Face hub."""

from pathlib import Path

from mesh.checkpoint.errors import NotACheckpoint
from mesh.checkpoint.origin import Origin
from mesh.checkpoint.origins.local import LocalOrigin


def open_origin(address: str) -> Origin:
    """The origin at an address. Close it at the end."""
    if not Path(address).is_absolute():
        raise NotACheckpoint(f"{address} is no absolute path of a Hugging Face directory")
    return LocalOrigin(Path(address))
