"""The gateway's settings."""

from pathlib import Path

from pydantic import Field

from mesh.settings import ServiceSettings
from services.gateway.moving.limits import MoveLimits


class GatewaySettings(ServiceSettings):
    """WHIMBREL_*; see each description."""

    port: int = Field(
        50051, ge=0, le=65535, description="Port of the public gRPC API; 0 takes a free one and prints it."
    )
    cache_dir: Path | None = Field(None, description="Directory for tokenizer files. Unset: a temporary one.")
    tokenizers: int = Field(64, ge=1, description="Most tokenizers kept in memory.")
    attempts: int = Field(
        3, ge=1, le=10, description="Workers in a row that may fail a request without a token from any; then it fails."
    )
    deaths: int = Field(
        2,
        ge=1,
        le=10,
        description="Workers that may be lost under a request at one token; then it is held to be why if it alone "
        "was at all of them, and else tried once more.",
    )
    hold_s: float = Field(120.0, gt=0, description="Most seconds that a request waits for a scheduler.")
    absent_s: float = Field(
        15.0, ge=0, description="Most seconds that a request waits for a store to come back that had its checkpoint."
    )
    default_max_tokens: int = Field(
        1024, ge=1, description="Most tokens of an answer when the request sets no max_tokens."
    )
    move_stop_s: float = Field(
        0.25, gt=0, description="Most seconds that an answer which moves stands still before it goes on where it was."
    )
    move_whole_s: float = Field(120.0, gt=0, description="Most seconds that a move takes until then.")
    move_rounds: int = Field(
        4, ge=1, le=100, description="Times that a move has tokens computed which came while others were, at most."
    )
    move_gap_tokens: int = Field(
        32, ge=0, description="Tokens that may be left to compute at the end of a move, while the answer waits."
    )

    def move_limits(self) -> MoveLimits:
        """Those of a move."""
        return MoveLimits(self.move_stop_s, self.move_whole_s, self.move_rounds, self.move_gap_tokens)
