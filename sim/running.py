"""What runs on a replica, made only for a policy that looks: most only count."""

from collections.abc import Mapping, Sequence
from typing import overload

from sim.engine import Engine
from sim.nodes import Replica, Worker
from sim.policy import RunningRequest
from sim.requests import Ongoing


class Running(Sequence[RunningRequest]):
    """Good for as long as nobody comes to the replica or leaves it; `mean_tokens` are of answers, by model."""

    def __init__(
        self,
        engine: Engine,
        worker: Worker,
        replica: Replica,
        running: Mapping[str, Ongoing],
        mean_tokens: Mapping[str, float],
    ) -> None:
        self._engine, self._worker, self._replica = engine, worker, replica
        self._running, self._mean_tokens = running, mean_tokens
        self._made: tuple[RunningRequest, ...] = ()
        self._made_s = -1.0

    def __len__(self) -> int:
        return len(self._replica.running)

    @overload
    def __getitem__(self, index: int) -> RunningRequest: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RunningRequest, ...]: ...
    def __getitem__(self, index: int | slice) -> RunningRequest | tuple[RunningRequest, ...]:
        if self._made_s != self._engine.now_s:
            self._made, self._made_s = self._make(), self._engine.now_s
        return self._made[index]

    def _make(self) -> tuple[RunningRequest, ...]:
        batch, mean_tokens = self._replica.batch, self._mean_tokens[self._replica.spot.model]
        tokens = self._worker.device.tokens(batch)
        step_s = batch.costs.steps(1, len(tokens), sum(one.prompt_tokens + has for one, has in tokens.items()))
        return tuple(
            RunningRequest(
                id=one.id,
                placed_s=self._running[one.id].here().since_s,
                prompt_tokens=one.prompt_tokens,
                emitted_tokens=has,
                left_s=max(1.0, mean_tokens - has) * step_s,
                priority=self._running[one.id].request.priority,
                tenant=self._running[one.id].request.tenant,
                moved_s=self._running[one.id].moved_s,
            )
            for one, has in tokens.items()
        )
