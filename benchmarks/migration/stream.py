"""Bytes of KV a second from worker to worker, beside the same bytes through a plain TCP socket."""

import asyncio
from dataclasses import dataclass

from benchmarks.child import child
from benchmarks.migration.gap import AFTER, BEFORE
from benchmarks.migration.stage import Stage
from benchmarks.report import say
from benchmarks.series import Series
from mesh.requests import MoveKind


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """GB a second; `ours` is from the beginning of a move to its end, the preparing and the tail included."""

    ours: Series
    tcp: Series
    megabytes: float

    @property
    def ratio(self) -> Series:
        """Ours over the wire's."""
        return self.ours.over(self.tcp)


async def measure_stream(stage: Stage) -> StreamFigures:
    """Alternates the two, with the longest context."""
    say("the stream of KV")
    context, ours, tcp, sent_bytes = stage.sizes.contexts[-1], [], [], 0
    for _ in range(stage.sizes.rounds):
        async with stage.asked(context) as watched:
            await watched.until(BEFORE)
            outcome = await stage.move(watched, MoveKind.KV)
            await watched.more(AFTER)
        sent_bytes = outcome.bytes_sent
        ours.append(sent_bytes / outcome.transfer_s / 1e9)
        tcp.append(await _plain(sent_bytes))
    return StreamFigures(Series.of(ours), Series.of(tcp), sent_bytes / 1e6)


async def _plain(size_bytes: int) -> float:
    """GB a second."""
    async with child("benchmarks.loading.tcp", ["send"]) as sender:
        port = await sender.answer()
        async with child("benchmarks.loading.tcp", ["receive", port]) as receiver:
            await receiver.answer()
            await asyncio.gather(*(side.ask(f"hold {size_bytes}") for side in (sender, receiver)))
            sending = asyncio.create_task(sender.ask("copy"))
            seconds = float(await receiver.ask("copy"))
            await sending
    return size_bytes / seconds / 1e9
