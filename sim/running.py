"""What runs on a replica, made only for a policy that looks: most only count."""

from collections.abc import Mapping, Sequence
from typing import overload

from sim.nodes import Replica, Worker
from sim.policy import RunningRequest
from sim.requests import Ongoing


class Running(Sequence[RunningRequest]):
    """Good for as long as the moment lasts at which it was made. `mean_tokens` is the model's mean answer."""

    def __init__(self, worker: Worker, replica: Replica, running: Mapping[str, Ongoing], mean_tokens: float) -> None:
        self._worker, self._replica, self._running, self._mean_tokens = worker, replica, running, mean_tokens
        self._made: tuple[RunningRequest, ...] | None = None

    def __len__(self) -> int:
        return len(self._replica.running)

    @overload
    def __getitem__(self, index: int) -> RunningRequest: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RunningRequest, ...]: ...
    def __getitem__(self, index: int | slice) -> RunningRequest | tuple[RunningRequest, ...]:
        if self._made is None:
            self._made = self._make()
        return self._made[index]

    def _make(self) -> tuple[RunningRequest, ...]:
        batch = self._replica.batch
        tokens = self._worker.device.tokens(batch)
        step_s = batch.costs.steps(1, len(tokens), sum(one.prompt_tokens + has for one, has in tokens.items()))
        return tuple(
            RunningRequest(
                id=one.id,
                placed_s=self._running[one.id].here().since_s,
                prompt_tokens=one.prompt_tokens,
                emitted_tokens=has,
                left_s=max(1.0, self._mean_tokens - has) * step_s,
                priority=self._running[one.id].request.priority,
            )
            for one, has in tokens.items()
        )
