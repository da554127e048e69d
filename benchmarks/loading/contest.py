"""Loaders raced round by round: the same checkpoint, one after the other, each in a process of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.cache import drop, read
from benchmarks.child import Child
from benchmarks.machine import cores
from benchmarks.series import BenchmarkBroken, Series


@dataclass(frozen=True, slots=True)
class Loaded:
    """One load: its seconds, its bytes, and the tier that ours took them from."""

    load_s: float
    bytes: int
    tier: str


LOADED: TypeAdapter[Loaded] = TypeAdapter(Loaded)


async def _nothing() -> None:
    """To be done before a load."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A loader that is ready. `order` is what it is told to load; `tier` is where that must come from, if it says."""

    key: str
    label: str
    process: Child
    order: str
    before: Callable[[], Awaitable[None]] = _nothing
    files: Sequence[Path] = ()  # what it reads
    tier: str = ""
    proves: bool = True  # has tensors to show; the raw limit has none


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one entrant: seconds a round."""

    key: str
    label: str
    bytes: int
    seconds: Series

    @property
    def gb_per_s(self) -> Series:
        """Of its rounds."""
        return Series.of(self.bytes / seconds / 1e9 for seconds in self.seconds.values)


@dataclass(frozen=True, slots=True)
class Results:
    """Of one contest."""

    entries: tuple[Result, ...]
    rounds: int

    def of(self, key: str) -> Result | None:
        """None: it did not take part."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def quickest(self, keys: Sequence[str]) -> Result:
        """The one of these with the least median."""
        found = [entry for key in keys if (entry := self.of(key))]
        return min(found, key=lambda entry: entry.seconds.median)

    def ratio(self, theirs: str, ours: str) -> Series | None:
        """How many times as long they took, round by round."""
        their, our = self.of(theirs), self.of(ours)
        return their.seconds.over(our.seconds) if their and our else None


@dataclass(frozen=True, slots=True)
class Race:
    """Rounds over the same model, its files out of the page cache (cold) or in it (warm)."""

    entrants: Sequence[Entrant]
    rounds: int
    cold: bool
    check: str = "check"  # what contestants are asked for, and must all answer alike

    async def run(self, say: Callable[[str], None]) -> Results:
        """Raises BenchmarkBroken when two do not end with the same bytes."""
        seconds: dict[str, list[Loaded]] = {entrant.key: [] for entrant in self.entrants}
        proof: str | None = None
        for number in range(self.rounds):
            say(f"  round {number + 1} of {self.rounds}")
            first = number % len(self.entrants)
            for entrant in (*self.entrants[first:], *self.entrants[:first]):
                loaded, check = await self._one(entrant)
                seconds[entrant.key].append(loaded)
                proof = _agreed(proof, check, entrant) if entrant.proves else proof
        results = (
            Result(entrant.key, entrant.label, took[0].bytes, Series.of(loaded.load_s for loaded in took))
            for entrant in self.entrants
            if (took := seconds[entrant.key])
        )
        return Results(tuple(results), self.rounds)

    async def _one(self, entrant: Entrant) -> tuple[Loaded, str]:
        await entrant.before()
        await asyncio.to_thread(drop if self.cold else read, entrant.files)
        loaded = LOADED.validate_json(await entrant.process.ask(f"load {entrant.order}"))
        if entrant.tier and loaded.tier != entrant.tier:
            raise BenchmarkBroken(f"{entrant.label} took its bytes from {loaded.tier}, not from {entrant.tier}")
        check = await entrant.process.ask(self.check) if entrant.proves else ""
        await entrant.process.ask("free")
        return loaded, check


def _agreed(proof: str | None, mine: str, entrant: Entrant) -> str:
    if proof is not None and mine != proof:
        raise BenchmarkBroken(f"{entrant.label} did not end with the same bytes as the others")
    return mine


def threads() -> dict[str, str]:
    """Of torch, for every contestant."""
    return {"OMP_NUM_THREADS": str(cores())}
