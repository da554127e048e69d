"""A store's manifests on this side: parsed and validated, the last few kept."""

import asyncio
from collections import OrderedDict

from blake3 import blake3

from mesh.checkpoint import layout
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.layout import Manifest
from mesh.errors import DataLoss


class Manifests:
    """The last few, parsed and validated once: a load sees its manifest twice, and a reload again."""

    CAPACITY = 8

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Manifest] = OrderedDict()  # by the hash of the JSON

    async def of(self, manifest_json: bytes) -> Manifest:
        """The manifest. Raises DataLoss, reason BAD_MANIFEST."""
        key = blake3(manifest_json).digest()
        if key not in self._known:
            self._known[key] = await _manifest(manifest_json)
            while len(self._known) > self.CAPACITY:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]


async def _manifest(manifest_json: bytes) -> Manifest:
    """Parsed and validated off the loop: that of many experts takes a while."""

    def read() -> Manifest:
        manifest = layout.parse(manifest_json)
        layout.validate(manifest)
        return manifest

    try:
        return await asyncio.to_thread(read)
    except ManifestError as error:
        raise DataLoss(f"the store sent a manifest that we cannot use: {error}", reason="BAD_MANIFEST") from error
