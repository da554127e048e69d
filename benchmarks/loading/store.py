"""A store in a process of its own, and what the benchmark asks of it. Its internals are nobody's business here."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.series import BenchmarkBroken
from cli.process import Program, ServiceProcess
from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.facts import CheckpointSummary, Kind, Tier

GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Store:
    """One that runs."""

    address: str
    pid: int
    directory: Path
    client: StoreClient

    async def take(self, source: Path) -> CheckpointSummary:
        """Imports a Hugging Face directory."""
        events = self.client.import_checkpoint(self.address, str(source))
        async with aclosing(events):
            async for event in events:
                if isinstance(event, CheckpointSummary):
                    return event
        raise BenchmarkBroken(f"the import of {source} ended without a checkpoint")

    async def tier(self, digest: str) -> Tier:
        """The nearest that holds all of it."""
        return (await self.client.stat(self.address, digest)).tier

    async def evict(self, digest: str) -> None:
        """Out of DRAM; on disk it stays."""
        await self.client.evict(self.address, digest, Tier.DRAM)
        if await self.tier(digest) is not Tier.DISK:
            raise BenchmarkBroken(f"{digest} is still in DRAM after Evict")

    def part_files(self, digest: str) -> list[Path]:
        """The checkpoint on disk."""
        return sorted(self.directory.glob(f"**/{digest}/part-*.bin"))


@asynccontextmanager
async def store(scratch: Path, name: str, settings: Mapping[str, str]) -> AsyncIterator[Store]:
    """Runs one until the block ends. `settings` are WHIMBREL_ variables, without the prefix."""
    directory = scratch / name
    directory.mkdir(exist_ok=True)
    own = {
        "WHIMBREL_HOST": "127.0.0.1",
        "WHIMBREL_PORT": "0",
        "WHIMBREL_STORE_DIR": str(directory.absolute()),
        "WHIMBREL_ID": name,
        **{f"WHIMBREL_{key}": value for key, value in settings.items()},
    }
    process = ServiceProcess(Program(Kind.STORE, name, own), scratch / f"{name}.log")
    channels = Channels()
    try:
        await process.start()
        yield Store(await process.address, process.pid, directory, StoreClient(channels))
    finally:
        await channels.close()
        await process.end(GRACE_S)
