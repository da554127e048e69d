"""What moves may take of a worker."""

from dataclasses import dataclass

from mesh.clients.receiving import Flow


@dataclass(frozen=True, slots=True)
class MoveLimits:
    """As the settings of the same names, `move_*`, say."""

    lease_s: float = 10.0
    window_bytes: int = 16 << 20
    bytes_s: float = 1e9
    precopy: bool = True
    pipe_host: str = "127.0.0.1"  # where pipes are listened for; empty: blocks come in messages

    @property
    def flow(self) -> Flow:
        """Of each stream to another worker."""
        return Flow(self.window_bytes, self.lease_s)


USUAL = MoveLimits()
