"""What the next step computes: who runs, how many tokens each, who is admitted and who must give way.
Decides only; replica.py carries the plan out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from services.worker.engine.blocks import PrefixHit, chain_hash
from services.worker.engine.generation import Generation
from services.worker.engine.lookup import Lookup
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.table import BlockTable


@dataclass(slots=True, eq=False)
class Paged(Generation):
    """A generation whose KV lies in blocks."""

    table: BlockTable
    kv_len: int = 0  # tokens whose KV is in the pool
    published: int = 0  # leading blocks that others can find
    root: bytes = b""  # parent of its first block's address: what its KV depends on beside its tokens
    chain: list[bytes] = field(default_factory=list)  # addresses of its full blocks, as far as asked for
    saved: "Saved | None" = None  # its KV, while it has given way
    lookup: Lookup | None = None  # where its drafts come from
    ahead: bool = False  # only its KV is wanted: it is to go on elsewhere first, and here perhaps

    @property
    def pending(self) -> int:
        """Tokens without KV. 1 when decoding: the newest one."""
        return len(self.tokens) - self.kv_len

    def in_common(self, other: "Paged") -> int:
        """How many leading tokens' KV both would have alike, its own newest token being left to compute."""
        if self.root != other.root:
            return 0
        most = min(len(self.tokens) - 1, len(other.tokens))
        if self.tokens[:most] == other.tokens[:most]:
            return most
        return next(
            i for i, (ours, theirs) in enumerate(zip(self.tokens, other.tokens, strict=False)) if ours != theirs
        )

    def addresses(self, tokens: int, block_tokens: int) -> list[bytes]:
        """Chain of the full blocks among the first `tokens` tokens."""
        count = tokens // block_tokens
        while len(self.chain) < count:
            start = len(self.chain) * block_tokens
            parent = self.chain[-1] if self.chain else self.root
            self.chain.append(chain_hash(parent, self.tokens[start : start + block_tokens]))
        return self.chain[:count]


@dataclass(frozen=True, slots=True)
class Saved:
    """KV of a sequence's first `tokens` tokens in host memory, but for the first `shared` blocks: those stay where
    others can find them."""

    tokens: int
    shared: int
    blocks: Tensor  # bytes [blocks, block_bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a step. As each running one has its row first, no more than `batch_tokens` ever run at once."""

    batch_tokens: int = 512
    running: int = 64
    draft_tokens: int = 0  # guessed ahead of each one that decodes, where tokens of the step are left over


@dataclass(frozen=True, slots=True)
class Span:
    """`count` tokens of a generation, `offset` of those without KV left out before them. Behind its newest token comes
    its draft."""

    generation: Paged
    count: int
    offset: int = 0
    draft: tuple[int, ...] = ()  # all of what is guessed, of which the span may have a part

    @property
    def start(self) -> int:
        """Position of the first."""
        return self.generation.kv_len + self.offset

    @property
    def end(self) -> int:
        """Position after the last."""
        return self.start + self.count

    @property
    def ids(self) -> list[int]:
        """The tokens."""
        newest = len(self.generation.tokens)
        known = self.generation.tokens[self.start : self.end]
        return [*known, *self.draft[max(0, self.start - newest) : max(0, self.end - newest)]] if self.draft else known

    @property
    def rows(self) -> int:
        """Rows of logits that it gives: of its generation's newest token, if it reaches so far, from which the next one
        can be sampled, and of what is guessed behind it."""
        newest = len(self.generation.tokens) - 1
        return 0 if self.generation.ahead else max(0, self.end - max(self.start, newest))


@dataclass(frozen=True, slots=True)
class Plan:
    """Preempt, then admit (adopting the cached prefix), then compute the spans: one-token spans first."""

    preempt: tuple[Paged, ...]
    admit: tuple[Paged, ...]
    spans: tuple[Span, ...]


def plan_step(
    running: Sequence[Paged],
    waiting: Iterable[Paged],
    *,
    idle_blocks: int,
    block_tokens: int,
    limits: Limits,
    prefix: Callable[[Paged], PrefixHit],
    numerics: Numerics = FAST,
) -> Plan:
    """Decoding rows first, then prefills in order of arrival, then new ones while tokens and blocks last.

    Under pressure the youngest gives way, keeping its tokens; so the oldest always advances. Where `numerics` knows
    whole chunks only, a step may exceed its tokens by less than one.
    """
    draft = _Draft(list(running), idle_blocks, limits.batch_tokens, block_tokens, numerics)
    for generation in [g for g in running if g.pending == 1] + [g for g in running if g.pending > 1]:
        draft.grant(generation)
    admitted = []
    if not draft.preempted:
        for generation in waiting:
            if len(draft.live) >= limits.running or not draft.admit(generation, prefix(generation)):
                break
            admitted.append(generation)
    spans = [Span(generation, count) for generation, count in draft.grants.items()]
    spans.sort(key=lambda span: span.count > 1)
    return Plan(tuple(draft.preempted), tuple(admitted), tuple(spans))


@dataclass(slots=True)
class _Draft:
    """A plan in the making, and what it leaves over."""

    live: list[Paged]  # in order of arrival
    idle: int
    budget: int
    block_tokens: int
    numerics: Numerics
    grants: dict[Paged, int] = field(default_factory=dict)
    preempted: list[Paged] = field(default_factory=list)

    def grant(self, generation: Paged) -> None:
        if generation in self.preempted:
            return
        count = self._within_budget(generation, generation.kv_len)
        while generation.table.missing(generation.kv_len + count) > self.idle:
            if self.live[-1] is generation:
                count = self._affordable(generation)
                break
            self._preempt(self.live[-1])
        self._spend(generation, count, generation.table.missing(generation.kv_len + count))

    def admit(self, generation: Paged, hit: PrefixHit) -> bool:
        """Only if all its tokens fit and each one running can still get a block: else it would soon give way."""
        needed = -(-len(generation.tokens) // self.block_tokens) - hit.blocks
        if self.budget <= 0 or needed + hit.idle + len(self.live) > self.idle:
            return False
        cached = hit.blocks * self.block_tokens + hit.beyond
        count = self._within_budget(generation, cached)
        self.live.append(generation)
        self._spend(generation, count, hit.idle + -(-(cached + count) // self.block_tokens) - hit.blocks)
        return True

    def _within_budget(self, generation: Paged, start: int) -> int:
        count = max(0, min(len(generation.tokens) - start, self.budget))
        return self.numerics.end_after(start + count, generation.prompt_len) - start if count else 0

    def _spend(self, generation: Paged, count: int, blocks: int) -> None:
        if count > 0:
            self.grants[generation] = count
            self.budget -= count
            self.idle -= blocks

    def _affordable(self, generation: Paged) -> int:
        end = (len(generation.table.blocks) + self.idle) * self.block_tokens
        return max(0, self.numerics.end_before(end, generation.prompt_len) - generation.kv_len)

    def _preempt(self, victim: Paged) -> None:
        self.live.pop()
        self.preempted.append(victim)
        count = self.grants.pop(victim, 0)
        self.budget += count
        self.idle += victim.table.sole() + (victim.table.missing(victim.kv_len + count) if count else 0)
