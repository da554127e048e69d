"""One request as the simulator knows it, asked of the real cluster."""

import string
import time
from contextlib import aclosing
from dataclasses import dataclass
from random import Random

from benchmarks.series import BenchmarkBroken
from mesh.clients.gateway import GatewayClient
from mesh.clients.gateway_records import Delta, Finished, SamplingWishes
from mesh.requests import StartKind
from sim.request import Request


@dataclass(frozen=True, slots=True)
class Seen:
    """What its client saw, in seconds from the call."""

    request: Request
    start: StartKind
    first_s: float
    total_s: float


async def ask(client: GatewayClient, request: Request, random: Random) -> Seen:
    """The prompt is random, so that no prefix of it is in any cache; a token is a byte of it, but for the first."""
    prompt = "".join(random.choices(string.ascii_lowercase, k=request.prompt_tokens))
    sampling = SamplingWishes(max_tokens=request.answer_tokens, temperature=0.0, ignore_eos=True)
    began_s, first_s = time.perf_counter(), 0.0
    async with aclosing(client.generate(request.model, prompt, sampling)) as events:
        async for event in events:
            match event:
                case Delta(token_ids=tokens) if tokens and not first_s:
                    first_s = time.perf_counter() - began_s
                case Finished():
                    return Seen(request, event.start_kind, first_s, time.perf_counter() - began_s)
    raise BenchmarkBroken("an answer ended before its time; see the gateway's log")
