"""Asks one question until its answer is whole: a client that comes back, at another gateway, with what it has.

It speaks the wire itself, so that what is counted does not rest on the client that we ship.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.gateway.v1.gateway_pb2_grpc import GenerationServiceStub

from chaos.heard import Heard
from chaos.questions import Question
from mesh.clients.channel import Channels, stream
from mesh.clients.gateway_wire import sampling_to
from mesh.errors import MeshError, NoRoom, Unreachable

PATIENCE_S = 600.0  # for one answer, whatever happens
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
WORTH_ANOTHER_TRY = (Unreachable, NoRoom)


class Asker:
    """Asks at `addresses`; `on_tokens` is told how many came, when they do."""

    def __init__(
        self,
        channels: Channels,
        addresses: Sequence[str],
        on_tokens: Callable[[int], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._channels, self._addresses, self._on_tokens = channels, addresses, on_tokens
        self._patience_s = patience_s

    async def ask(self, heard: Heard, first: int) -> None:
        """Fills `heard` to its end; the gateway of number `first` is asked first, and the next one after each break."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._ask(heard, first)
        except TimeoutError:
            heard.failure = f"STUCK: not over after {self._patience_s:g} s"
        except MeshError as error:
            heard.failure = f"{error.reason}: {error.message}"

    async def _ask(self, heard: Heard, at: int) -> None:
        pause_s = FIRST_PAUSE_S
        while not heard.over:
            before = heard.tokens
            try:
                await self._read(heard, self._addresses[at % len(self._addresses)])
            except WORTH_ANOTHER_TRY as error:
                heard.came_back[error.reason] += 1
                at += 1
                pause_s = FIRST_PAUSE_S if heard.tokens > before else min(2 * pause_s, LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)
            else:
                if not heard.over:
                    heard.failure = "ENDED: the stream ended without a last word"

    async def _read(self, heard: Heard, address: str) -> None:
        stub = GenerationServiceStub(self._channels.to(address))
        call = stub.Generate(request(heard), timeout=self._patience_s)
        async with aclosing(stream(call, f"gateway at {address}")) as responses:
            async for response in responses:
                if tokens := heard.hear(response):
                    self._on_tokens(tokens)
                if heard.over:
                    return


def request(heard: Heard) -> pb.GenerateRequest:
    """The question, and what has come of it."""
    asked = heard.question
    made = plain(asked)
    if heard.tokens:
        made.received.extend(heard.received())
        made.checkpoint = heard.checkpoint
    return made


def plain(asked: Question) -> pb.GenerateRequest:
    """The question as it is first asked."""
    return pb.GenerateRequest(
        model=asked.model,
        text=asked.prompt,
        sampling=sampling_to(asked.wishes),
        request_id=asked.request_id,
        n=asked.answers,
    )
