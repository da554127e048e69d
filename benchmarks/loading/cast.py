"""The processes that load: one for each peer that is installed, and ours. Each has its imports behind it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, child
from benchmarks.loading.contest import Entrant, threads
from benchmarks.loading.peers import EVERYWHERE, PEERS, ROOT
from benchmarks.loading.store import Store


@dataclass(frozen=True, slots=True)
class Cast:
    """`peers` by key, in the order of PEERS; `worker` is our loader, for any store."""

    worker: Child
    peers: Mapping[str, Child]

    @property
    def missing(self) -> tuple[str, ...]:
        """Labels of the peers that are not installed."""
        return tuple(peer.label for peer in PEERS if peer.key not in self.peers)

    async def converted(self, *directories: Path) -> None:
        """Everybody has these models in the format that he reads; torch's is what tensorizer's is made from."""
        for process in self.peers.values():
            for directory in directories:
                await process.ask(f"convert {directory}")

    async def warmed_up(self, directory: Path, *, everybody: bool = True) -> None:
        """They have loaded it once: what they import late is imported."""
        for entrant in self.entrants(directory, cold=True, everybody=everybody):
            await entrant.process.ask(f"load {entrant.order}")
            await entrant.process.ask("free")

    def entrants(self, directory: Path, *, cold: bool, everybody: bool = True) -> list[Entrant]:
        """The peers for a race; without `everybody`, those of our own environment."""
        mode = "cold" if cold else "warm"
        return [
            Entrant(peer.key, peer.label, self.peers[peer.key], f"{mode} {directory}", files=peer.files(directory))
            for peer in PEERS
            if peer.key in self.peers and (everybody or peer.key in EVERYWHERE)
        ]

    def ours(self, key: str, label: str, of: Store, digest: str, *, cold: bool) -> Entrant:
        """Ours for a race: cold, the store drops the checkpoint from its memory first."""

        async def evict() -> None:
            await of.evict(digest)

        order = f"{of.address} {digest}"
        if cold:
            return Entrant(key, label, self.worker, order, evict, of.part_files(digest), tier="disk")
        return Entrant(key, label, self.worker, order, tier="dram")


@asynccontextmanager
async def cast(venvs: Path, say: Callable[[str], None]) -> AsyncIterator[Cast]:
    """Starts all of them."""
    say("starting the contestants")
    async with AsyncExitStack() as stack:
        peers: dict[str, Child] = {}
        for peer in PEERS:
            if peer.installed(venvs):
                settings = {**threads(), "PYTHONPATH": str(ROOT), **peer.settings}
                starting = child("benchmarks.loading.contestant", [peer.loader], settings, peer.python(venvs))
                peers[peer.key] = await stack.enter_async_context(starting)
        (worker,) = await stack.enter_async_context(workers(1))
        for process in peers.values():
            await process.answer()
        yield Cast(worker, peers)


@asynccontextmanager
async def workers(count: int, settings: Mapping[str, str] | None = None) -> AsyncIterator[list[Child]]:
    """That many of our loaders. `settings` are a worker's."""
    own = {**threads(), **(settings or {})}
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(child("benchmarks.loading.ours", settings=own)) for _ in range(count)
        ]
        for process in started:
            await process.answer()
        yield started
