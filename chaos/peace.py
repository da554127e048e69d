"""What every question is answered with when nothing happens: by a cluster of which nobody dies."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from chaos.asker import Asker
from chaos.heard import Heard
from chaos.questions import Question
from chaos.stage import Library, quiet
from mesh.clients.channel import Channels
from mesh.errors import Broken

AT_ONCE = 48
PATIENCE_S = 3600.0  # they take turns, on a machine that may be busy


async def answers_in_peace(directory: Path, shelf: Library, asked: Sequence[Question]) -> Mapping[Question, Heard]:
    """By Question.same, each asked once. Broken where even that comes to nothing."""
    found = {question.same: Heard(question.same) for question in asked}
    channels = Channels()
    async with quiet(directory, shelf) as cluster:
        asker = Asker(channels, [cluster.gateway_address], lambda _: None, PATIENCE_S)
        waiting = iter(found.values())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(_ask_on(asker, waiting))
        finally:
            await channels.close()
    if bad := [heard for heard in found.values() if heard.failure or heard.came_back or heard.out_of_turn]:
        raise Broken(f"in peace, {len(bad)} questions failed, such as {bad[0].question}: {bad[0].failure}")
    return found


async def _ask_on(asker: Asker, waiting: Iterator[Heard]) -> None:
    for heard in waiting:
        await asker.ask(heard, 0)
