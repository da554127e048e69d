"""The scheduler's settings."""

from typing import Annotated

from pydantic import Field

from mesh.settings import ServiceSettings
from policy.knobs import Knobs

Weight = Annotated[float, Field(gt=0, le=1e6)]


class SchedulerSettings(ServiceSettings):
    """WHIMBREL_*; see each description."""

    leader_lease_s: float = Field(
        1.0, gt=0, le=60, description="Seconds without a word of the leader after which a standby takes its place."
    )
    keep_alive_s: float | None = Field(
        None, ge=0, description="Most seconds that an idle replica stays loaded; unset: until its memory is wanted."
    )
    hold_s: float = Field(120.0, gt=0, description="Most seconds that a request waits for a place.")
    max_waiting: int = Field(256, ge=1, description="Most requests that wait for one model.")
    tenant_requests: int | None = Field(
        None, ge=1, description="Most requests that a tenant may have at once, waiting and running; unset: any number."
    )
    distrust_s: float = Field(5.0, ge=0, description="Seconds without loads for a worker that could not be reached.")
    ageing_s: float = Field(
        30.0, gt=0, description="Seconds of waiting after which a request counts as of the next higher priority."
    )
    tenant_weights: dict[str, Weight] = Field(
        {}, description='Shares of the devices, as {"tenant": weight}; 1 for whom it does not name.'
    )

    copies: bool = Field(
        True, description="Whether stores bring what is often asked for to memory, in place of other checkpoints."
    )
    moves: bool = Field(
        True, description="Whether running requests go on at other workers where that helps; asked for, they always do."
    )

    def knobs(self) -> Knobs:
        """The policy's numbers."""
        return Knobs(
            keep_alive_s=self.keep_alive_s,
            hold_s=self.hold_s,
            max_waiting=self.max_waiting,
            tenant_requests=self.tenant_requests,
            distrust_s=self.distrust_s,
            ageing_s=self.ageing_s,
            tenant_weights=self.tenant_weights,
            copies=self.copies,
            moves=self.moves,
        )
