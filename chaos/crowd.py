"""The clients: so many at once, each with the next question, and what all of them have got by now."""

import asyncio
import random
from collections.abc import Callable, Sequence

from chaos.asker import Asker
from chaos.heard import Heard
from chaos.questions import Question
from mesh.clients.channel import Channels

SAID_EVERY = 50


class Crowd:
    """Asks every question at one of `addresses`; the seed says at which first. Says how far it has come."""

    def __init__(
        self, asked: Sequence[Question], addresses: Sequence[str], clients: int, seed: int, say: Callable[[str], None]
    ) -> None:
        self._addresses, self._clients, self._say = addresses, clients, say
        self._count, self._over = len(asked), 0
        self._chance = random.Random(f"crowd {seed}")
        self._left = iter(asked)
        self.heard: list[Heard] = []
        self.tokens = 0  # that all clients together have got
        self._more = asyncio.Event()

    async def ask_all(self) -> None:
        """Returns when every question is over."""
        channels = Channels()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._clients):
                    group.create_task(self._ask_on(Asker(channels, self._addresses, self._got)))
        finally:
            await channels.close()

    @property
    def running(self) -> list[Heard]:
        """The questions of which something has come and more is to come."""
        return [heard for heard in self.heard if heard.tokens and not heard.over]

    async def more(self, tokens: int) -> None:
        """Waits for so many more tokens."""
        wanted = self.tokens + tokens
        while self.tokens < wanted:
            self._more.clear()
            await self._more.wait()

    async def _ask_on(self, asker: Asker) -> None:
        for question in self._left:
            heard = Heard(question)
            self.heard.append(heard)
            await asker.ask(heard, self._chance.randrange(len(self._addresses)))
            self._tell(heard)

    def _tell(self, heard: Heard) -> None:
        """A failure at once; else one line in so many answers."""
        self._over += 1
        if heard.failure:
            self._say(f"  {heard.question.request_id} failed: {heard.failure}")
        if self._over % SAID_EVERY == 0:
            self._say(f"  {self._over} of {self._count} answers are over, {self.tokens} tokens")

    def _got(self, tokens: int) -> None:
        self.tokens += tokens
        self._more.set()
