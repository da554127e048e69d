"""How often a request is tried again when its worker fails it, and when it is held to be the cause itself."""

import random
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from mesh.errors import MeshError, Unreachable

log = structlog.get_logger()
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # before the second try in a row, and before any
NEAR_TOKENS = 4  # that a worker may have made and not told us before it died
DIED = "WORKER_LOST"  # as against one that could not be reached at all


FAILED = Counter("whimbrel_worker_failures_total", "Requests that a worker failed in their midst, by why.", ["reason"])


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many workers may fail a request, in a row and without a token from any."""

    attempts: int
    deaths: int  # of workers, at one token: after these it is tried no more, or once more if it had company


@dataclass(slots=True)
class Retries:
    """Of one request. Tokens are those of all its answers; what is new of any begins the count anew."""

    bounds: Bounds
    excluded: set[int] = field(default_factory=set)  # fences of the workers that failed it
    _failed: int = 0  # times in a row
    _tokens: int = 0  # at the newest failure
    _deaths: list[tuple[int, int]] = field(default_factory=list)  # the worker's fence, and the tokens, at each

    def lost(self, tokens: int) -> frozenset[int]:
        """Fences of the workers that died while it made that token, as far as anybody can tell."""
        return frozenset(fence for fence, died_at in self._deaths if died_at >= tokens - NEAR_TOKENS)

    def suspected(self, tokens: int) -> bool:
        """Whether the workers may have died of it, or of others that were there."""
        return len(self.lost(tokens)) >= self.bounds.deaths

    def after(self, error: MeshError, fence: int, tokens: int, *, company: bool = False) -> float:
        """Seconds to wait until the next try, the worker of `fence` having failed. Raises when there is to be none:
        the error, or Unreachable with the reason POISONOUS. `company` says that others may be the cause as well."""
        if tokens > self._tokens:
            self._failed, self._tokens = 0, tokens
            self.excluded.clear()
        FAILED.labels(error.reason.lower()).inc()
        self._failed += 1
        self.excluded.add(fence)
        if error.reason == DIED:
            self._blame(error, fence, tokens, company=company)
        if self._failed >= self.bounds.attempts:
            raise error
        log.info("trying another worker", error=error.message, tokens=tokens, failed=self._failed)
        return self._pause_s()

    def _blame(self, error: MeshError, fence: int, tokens: int, *, company: bool) -> None:
        self._deaths.append((fence, tokens))
        here = len(self.lost(tokens))
        if here >= self.bounds.deaths + company:
            raise Unreachable(
                f"{here} workers in a row were lost while they made token {tokens} of this request's answer; "
                "change the request before you send it again",
                reason="POISONOUS",
                metadata=error.metadata,
            ) from error

    def _pause_s(self) -> float:
        """None before the first try in a row, then longer and longer, and not the same for all."""
        longest_s = FIRST_PAUSE_S * 2.0 ** (self._failed - 2) if self._failed > 1 else 0.0
        return min(longest_s, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
