"""One request on the opaque runner, and those that stand ready there without running."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mesh.requests import FinishReason, TokenLogprob
from services.worker.engine.errors import UnknownRequest
from services.worker.engine.generation import Generation
from services.worker.engine.opaque import Held
from services.worker.engine.request import TokenStep


@dataclass(slots=True, eq=False)
class Opaque(Generation):
    """A generation with a cache of its own. Without one, its tokens are computed anew."""

    held: Held | None = None
    seen: int = 0  # tokens whose state is held
    turn: int = 0  # the step that it had last
    likely: list[TokenLogprob] = field(default_factory=list)  # of its newest tokens, when asked for
    ahead: bool = False  # only its state is wanted: it is to go on elsewhere first, and here perhaps

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.tokens) - self.seen

    def inherit(self, former: "Opaque") -> list[TokenStep]:
        """Go on from what `former` holds. A state cannot be cut: one that has seen more than this one's tokens is of
        use if it has chosen the same ones, and more, which are told now. Else all is computed anew."""
        former.held, held = None, former.held
        if held is None or former.request.replica != self.request.replica:
            return []
        log, more = len(self.tokens), former.tokens[len(self.tokens) :]
        asked = self.request.params.top_logprobs is not None
        if former.seen >= log:
            if former.ahead or former.tokens[:log] != self.tokens or (asked and len(former.likely) < len(more)):
                return []
            self.tokens += more
        elif former.tokens[: former.seen] != self.tokens[: former.seen]:
            return []
        self.held, self.seen = held, former.seen
        if len(self.tokens) == log:
            return []
        self.likely = former.likely[-len(more) :] if asked else []
        return [TokenStep(self.request.request_id, log - self.prompt_len, tuple(more), logprobs=tuple(self.likely))]

    def ended(self, finish: FinishReason, error: str = "") -> TokenStep:
        """Its last step, if it ends so."""
        return TokenStep(self.request.request_id, self.generated, (), finish, error)


class Kept:
    """Come from elsewhere, or computed ahead: until they are adopted, whatever else needs their memory gets it."""

    def __init__(self) -> None:
        self._kept: dict[str, Opaque] = {}  # the youngest last
        self._told: list[TokenStep] = []

    def __iter__(self) -> Iterator[Opaque]:
        return iter(tuple(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def has_news(self) -> bool:
        """Whether `told` would say something."""
        return bool(self._told)

    def put(self, generation: Opaque) -> None:
        """Keep one."""
        self._kept[generation.request.request_id] = generation

    def ready(self, generation: Opaque) -> None:
        """Keep one that has been computed ahead, and tell so."""
        self.put(generation)
        self._told.append(TokenStep(generation.request.request_id, generation.generated, ()))

    def find(self, request_id: str) -> Opaque:
        """One that is kept; UnknownRequest if it is not (any more)."""
        try:
            return self._kept[request_id]
        except KeyError:
            raise UnknownRequest(f"{request_id} is not kept here; it may have given way") from None

    def take(self, request_id: str) -> Opaque | None:
        """One that is kept no more; None if it was not."""
        return self._kept.pop(request_id, None)

    def give_way(self) -> bool:
        """Drop the youngest; False if there is none."""
        if not self._kept:
            return False
        _, youngest = self._kept.popitem()
        why = "what was kept of it gave way to what runs here; send the request itself, or move it elsewhere"
        self._told.append(youngest.ended(FinishReason.ERROR, why))
        return True

    def told(self) -> list[TokenStep]:
        """What is to be said of those kept, since this was last asked."""
        told, self._told = self._told, []
        return told
