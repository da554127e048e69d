"""Who wants to know how a load goes."""

from dataclasses import dataclass, field

from mesh.checkpoint.layout import Manifest
from mesh.requests import LoadProgress


@dataclass
class Listener:
    """Takes any size, and keeps what it hears."""

    manifests: list[Manifest] = field(default_factory=list)
    steps: list[LoadProgress] = field(default_factory=list)

    def manifest(self, manifest: Manifest) -> None:
        """The size is known."""
        self.manifests.append(manifest)

    def progress(self, progress: LoadProgress) -> None:
        """Bytes have come."""
        self.steps.append(progress)
