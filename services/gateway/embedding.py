"""One embedding request: place, send its inputs some at a time, give their vectors. A lost worker is replaced."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from mesh.clients.worker import WorkerClient
from mesh.errors import Broken, Conflict, MeshError, NotFound, Unreachable
from mesh.requests import PLAIN, Placement, Pooling, Progress, ServiceClass, Wish
from services.gateway.places import Places

GROUP_INPUTS, GROUP_TOKENS = 64, 1 << 14  # of one call: bounds a message, and what a lost worker costs


@dataclass(frozen=True, slots=True)
class ToEmbed:
    """A request, checked and tokenized for the version `digest` of its model."""

    request_id: str
    model: str
    digest: str
    inputs: tuple[tuple[int, ...], ...]
    pooling: Pooling
    arrived_s: float  # time.monotonic
    service: ServiceClass = PLAIN


@dataclass(frozen=True, slots=True)
class Vectors:
    """Of the inputs from `first` on."""

    first: int
    values: list[list[float]]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The end, and how it went."""

    placement: Placement
    prompt_tokens: int
    total_s: float


Event = Progress | Vectors | Embedded


@dataclass(slots=True)
class _Trial:
    """How far a request has come, and where it should not be tried again."""

    done: int = 0  # inputs
    place: Placement | None = None
    excluded: set[int] = field(default_factory=set)


class Embeddings:
    """Runs requests. All vectors of one are made by one version of its model, the current one."""

    def __init__(self, places: Places, workers: WorkerClient, attempts: int) -> None:
        self._places, self._workers, self._attempts = places, workers, attempts

    async def run(self, asked: ToEmbed) -> AsyncGenerator[Event, None]:
        """Progress, Vectors in the order of the inputs, one Embedded. Closing the iteration cancels the request."""
        trial = _Trial()
        while True:
            try:
                async with aclosing(self._attempt(asked, trial)) as events:
                    async for event in events:
                        yield event
                return
            except (Unreachable, NotFound) as error:
                if not self._try_again(error, trial):
                    raise

    def _try_again(self, error: MeshError, trial: _Trial) -> bool:
        if trial.place is None or len(trial.excluded) + 1 >= self._attempts:
            return False
        trial.excluded.add(trial.place.fence)
        trial.place = None
        return True

    async def _attempt(self, asked: ToEmbed, trial: _Trial) -> AsyncGenerator[Event, None]:
        async with aclosing(self._places.assign(_wish(asked, trial))) as places:
            async for event in places:
                if not isinstance(event, Placement):
                    if isinstance(event, Progress):
                        yield event
                    continue
                trial.place = event
                async with aclosing(self._embed(asked, trial, event)) as vectors:
                    async for one in vectors:
                        yield one
                tokens = sum(len(one) for one in asked.inputs)
                yield Embedded(event, tokens, time.monotonic() - asked.arrived_s)
                return  # only now is the place given back
        raise Broken("the scheduler's answer ended without a placement")

    async def _embed(self, asked: ToEmbed, trial: _Trial, place: Placement) -> AsyncGenerator[Vectors, None]:
        if place.digest != asked.digest:
            raise Conflict(f"{asked.model!r} has just been updated; send the request again", reason="MODEL_UPDATED")
        for group in _groups(asked.inputs[trial.done :]):
            found = await self._workers.embed(place.address, asked.model, asked.digest, group, asked.pooling)
            yield Vectors(trial.done, found)
            trial.done += len(found)


def _wish(asked: ToEmbed, trial: _Trial) -> Wish:
    return Wish(
        request_id=asked.request_id,
        model=asked.model,
        excluded=frozenset(trial.excluded),
        current_only=True,
        stays=True,
        service=asked.service.after(time.monotonic() - asked.arrived_s),
        prompt_tokens=sum(map(len, asked.inputs[trial.done :])),
    )


def _groups(inputs: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """In order, each of at least one input."""
    group: list[tuple[int, ...]] = []
    for one in inputs:
        if group and (len(group) == GROUP_INPUTS or sum(map(len, group)) + len(one) > GROUP_TOKENS):
            yield group
            group = []
        group.append(one)
    if group:
        yield group
