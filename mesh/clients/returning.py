"""A client that comes back for the rest of its answer: what it has had of it, and how long it goes on asking."""

import asyncio
import time
from collections import defaultdict
from copy import deepcopy
from dataclasses import replace

from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.clients.gateway_records import AnswerEvent, Delta, Finished, Started
from mesh.errors import MeshError, NoRoom

Request = pb.GenerateRequest | pb.ChatRequest
PATIENCE_S = 120.0  # without anything new: a gateway that was killed is up again by then, on a busy machine too
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
HOPELESS = frozenset({"POISONOUS"})


class Returning:
    """One request, over as many streams as it takes."""

    def __init__(self, request: Request, patience_s: float) -> None:
        self._request, self._patience_s = request, patience_s
        self._began_s, self._first_s = time.monotonic(), 0.0
        self._tokens: defaultdict[int, list[int]] = defaultdict(list)  # by answer
        self._started: Started | None = None
        self._broke_s: float | None = None  # since when nothing new has come
        self._pause_s = FIRST_PAUSE_S
        self._streams = 1
        self.heard = False  # whether a gateway has said anything

    @property
    def begun(self) -> bool:
        """Whether tokens have come."""
        return bool(self._tokens)

    @property
    def passed_s(self) -> float:
        """Since it was asked first."""
        return time.monotonic() - self._began_s

    def take(self, event: AnswerEvent) -> AnswerEvent | None:
        """What is told of an event: of starts only the first, and an end as that of all streams together."""
        self.heard = True
        match event:
            case Started() if self._started:
                return None
            case Started():
                self._started = event
            case Delta():
                self._grow(event)
            case Finished() if self._streams > 1:
                return replace(event, time_to_first_token_s=self._first_s, total_s=self.passed_s)
        return event

    def _grow(self, delta: Delta) -> None:
        self._first_s = self._first_s or self.passed_s
        self._tokens[delta.index].extend(delta.token_ids)
        self._broke_s, self._pause_s = None, FIRST_PAUSE_S

    async def pause(self, error: MeshError, *, gone: bool) -> None:
        """Waits until it is worth asking again after `error`; `gone` says that no gateway has sent it. Raises the error
        when nothing is to be hoped for."""
        now_s = time.monotonic()
        self._broke_s = now_s if self._broke_s is None else self._broke_s
        if not self._hopeful(error, gone=gone) or now_s - self._broke_s >= self._patience_s:
            raise error
        await asyncio.sleep(max(self._pause_s, min(error.retry_after_s or 0.0, LONGEST_PAUSE_S)))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._streams += 1

    def _hopeful(self, error: MeshError, *, gone: bool) -> bool:
        """An answer that has begun is worth a lot of trying; one that has not, only when the gateway went away."""
        if error.reason in HOPELESS or (isinstance(error, NoRoom) and error.retry_after_s is None):
            return False
        return self.begun or (gone and self.heard)

    def request(self) -> Request:
        """What is asked next: the same, after what has come."""
        if not self._started or not self._tokens:
            return self._request
        again = deepcopy(self._request)
        again.request_id, again.checkpoint = self._started.request_id, self._started.checkpoint
        again.received.extend(pb.Received(index=n, token_ids=tokens) for n, tokens in self._tokens.items())
        return again
