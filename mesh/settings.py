"""The base of every service's settings: WHIMBREL_* in the environment, checked at start."""

import socket
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError


class BadSettings(Exception):
    """One or more settings are wrong; the message names them all."""


class ServiceSettings(BaseSettings):
    """What every service has."""

    model_config = SettingsConfigDict(env_prefix="WHIMBREL_", frozen=True, extra="forbid")

    cluster: str = Field(
        "default",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="Name of the cluster; it prefixes every Redis key.",
    )
    redis_url: str = Field("", description="redis:// or unix:// address. Empty: start an embedded server.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes a free one and prints it.")
    advertise: str = Field("", description="host:port that others reach this process at. Empty: what it listens on.")
    node: str = Field(default_factory=socket.gethostname, min_length=1, description="Name of the machine.")
    id: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,64}$", description="Name of this process. Empty: made from its kind."
    )
    lease_s: float = Field(
        5.0, gt=0, le=300, description="Seconds without a heartbeat after which this process counts as gone."
    )
    drain_s: float = Field(
        0.2, ge=0, le=60, description="Seconds between saying NOT_SERVING and refusing calls at shutdown."
    )
    grace_s: float = Field(10.0, ge=0, le=3600, description="Seconds that running calls get at shutdown.")
    max_message_bytes: int = Field(16 << 20, ge=1 << 20, le=1 << 30, description="Largest gRPC message taken.")
    metrics_port: int = Field(-1, ge=-1, le=65535, description="Port of the Prometheus page; -1: none, 0: any.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level that is logged.")

    @classmethod
    def load(cls, **given: object) -> Self:
        """Reads the environment; BadSettings names every wrong value at once."""
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValidationError as error:
            lines = [f"  {_name(e['loc'])}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
            raise BadSettings("wrong settings:\n" + "\n".join(lines)) from None
        except SettingsError as error:  # a list that is no JSON is not even checked
            raise BadSettings(f"wrong settings:\n  {error}: {error.__cause__}") from None


def _name(location: tuple[int | str, ...]) -> str:
    return "WHIMBREL_" + "_".join(str(part) for part in location).upper()
