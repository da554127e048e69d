"""Bytes from another store over loopback, beside the same bytes through a plain blocking TCP socket."""

import asyncio
from dataclasses import dataclass

from benchmarks.child import child
from benchmarks.loading.cast import workers
from benchmarks.loading.contest import LOADED
from benchmarks.loading.stage import MAIN, Stage, pool_bytes
from benchmarks.series import Series

STREAM = {"WHIMBREL_TRANSPORT": "stream"}


@dataclass(frozen=True, slots=True)
class WireFigures:
    """GB a second, each unit's hash checked on ours."""

    units: Series  # ReadUnits into a worker's own memory
    tcp: Series

    @property
    def efficiency(self) -> Series:
        """What gRPC and the checking leave of the wire."""
        return self.units.over(self.tcp)


async def measure_wire(stage: Stage) -> WireFigures:
    """Alternates the two. The sending store has the bytes in DRAM; so has the plain sender."""
    (main,) = await stage.have(stage.sizes.main)
    stage.say("bytes from another store")
    units, tcp = [], []
    async with (
        stage.store(MAIN, pool_bytes(main), VERIFY="import") as store,
        workers(1) as (mapping,),
        workers(1, STREAM) as (streaming,),
        child("benchmarks.loading.tcp", ["send"]) as sender,
    ):
        order = f"load {store.address} {main.digest}"
        await mapping.ask(order)  # holds it in DRAM
        port = await sender.answer()
        async with child("benchmarks.loading.tcp", ["receive", port]) as receiver:
            await receiver.answer()
            await asyncio.gather(*(side.ask(f"hold {main.bytes}") for side in (sender, receiver)))
            for number in range(stage.sizes.rounds):
                stage.say(f"  round {number + 1} of {stage.sizes.rounds}")
                loaded = LOADED.validate_json(await streaming.ask(order))
                await streaming.ask("free")
                units.append(loaded.bytes / loaded.load_s / 1e9)
                sent = asyncio.create_task(sender.ask("copy"))
                tcp.append(main.bytes / float(await receiver.ask("copy")) / 1e9)
                await sent
    return WireFigures(Series.of(units), Series.of(tcp))
