"""The gateway's settings."""

from pathlib import Path

from pydantic import Field

from mesh.settings import ServiceSettings


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
        2, ge=1, le=10, description="Workers that may be lost under a request at one token; then it is held to be why."
    )
    hold_s: float = Field(120.0, gt=0, description="Most seconds that a request waits for a scheduler.")
    absent_s: float = Field(
        15.0, ge=0, description="Most seconds that a request waits for a store to come back that had its checkpoint."
    )
    default_max_tokens: int = Field(
        1024, ge=1, description="Most tokens of an answer when the request sets no max_tokens."
    )
