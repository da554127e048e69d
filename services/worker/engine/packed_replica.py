"""A replica on the packed runner: its generations, their blocks, and the step that advances them."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from mesh.requests import FinishReason, Pooling
from services.worker.engine import model
from services.worker.engine.adapter import Adapter
from services.worker.engine.adapters import Rows
from services.worker.engine.arrivals import Arrivals
from services.worker.engine.batch import Limits, Paged, Plan, Span
from services.worker.engine.bounds import Bounds
from services.worker.engine.canary import prove
from services.worker.engine.costs import Costs
from services.worker.engine.decoding import Decoding, decoding_on
from services.worker.engine.departures import Departures
from services.worker.engine.draft import Drafter
from services.worker.engine.errors import UnknownRequest
from services.worker.engine.fingerprint import fingerprint
from services.worker.engine.generation import asking
from services.worker.engine.host_tier import HostTier
from services.worker.engine.inputs import check_tokens
from services.worker.engine.kv_cache import KVCache
from services.worker.engine.kv_share import KVShare
from services.worker.engine.next_step import NextStep
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.packed import PackedRunner
from services.worker.engine.packing import PackBudget
from services.worker.engine.pool import KVSpec, blocks_in
from services.worker.engine.pooling import pooled
from services.worker.engine.request import EngineRequest, ReplicaStats, TokenStep
from services.worker.engine.roster import Roster
from services.worker.engine.verify import verify
from services.worker.engine.whole import hidden_states


class PackedReplica:
    """`module` has its weights assigned; `kv_bytes` of KV are allocated here. `digest` names the checkpoint: KV is
    shared only between equal digests. `spec` saves the probe when the manifest has it. `tier` is host memory that
    all replicas of a worker share, so is `packing`. On the host, it can use what other replicas do not need of their
    KV memory, up to `most_kv_bytes` in all. `decoding` is what its device does best unless given."""

    def __init__(
        self,
        name: str,
        digest: str,
        module: PreTrainedModel,
        kv_bytes: int,
        *,
        spec: KVSpec | None = None,
        eos_token_ids: Iterable[int] | None = None,
        limits: Limits | None = None,
        numerics: Numerics = FAST,
        tier: HostTier | None = None,
        packing: PackBudget | None = None,
        costs: Costs | None = None,
        clock: Callable[[], float] = time.perf_counter,
        most_kv_bytes: int = 0,
        decoding: Decoding | None = None,
    ) -> None:
        model.prepare(module)
        spec = spec or model.probe_kv(module)
        blocks = blocks_in(kv_bytes, spec)
        self.name = name
        self.digest = digest
        self.limits = limits or Limits()
        self.bounds = Bounds.of(name, module, blocks * spec.block_tokens, eos_token_ids=eos_token_ids)
        self.numerics = numerics
        self.fingerprint = ""
        self._spec = spec
        # Parent of every first block: KV of other checkpoints, laid out or computed otherwise, is never taken for ours.
        salt = digest.encode() + spec.fingerprint() + repr(numerics).encode()
        self.prefix_root = hashlib.blake2b(salt, digest_size=16).digest()
        most = max(blocks, most_kv_bytes // spec.block_bytes) if module.device.type == "cpu" else blocks
        decoding = decoding or decoding_on(module.device)
        rows = self.limits.running
        self._runner = PackedRunner(module, spec, most, numerics, packing, decoding=decoding, most_rows=rows)
        self._costs, self._clock = costs or Costs(), clock
        self._cache = KVCache(self._runner.pool, tier or HostTier(0), self._costs, numerics, blocks=blocks, clock=clock)
        self._roster = Roster()
        self._drafter = Drafter(self.limits, numerics, self._cache)
        self.departures = Departures(self._cache, self._roster)
        self.arrivals = Arrivals(self._cache, self._roster, self._generation, self.limits.running)
        self._next = NextStep(
            self._cache, self._roster, self.departures, self.arrivals, limits=self.limits, numerics=numerics
        )
        self.kv_share = KVShare(self._cache, self._roster, self._next, booked=blocks, most=most)
        self._steps = self._tokens = 0

    def check(self, request: EngineRequest) -> None:
        """Raise RequestRefused if this replica can never run `request`, however idle. Changes nothing."""
        self.bounds.check(request)

    def check_input(self, tokens: Sequence[int]) -> None:
        """See Replica."""
        check_tokens(tokens, self.bounds.vocabulary, self.bounds.max_positions)

    def embed(self, name: str, inputs: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """See Replica."""
        lengths = [len(one) for one in inputs]
        with self._runner.adapters.over([Rows(name, sum(lengths))], []):
            return pooled(hidden_states(self.module, inputs), lengths, pooling)

    def stats(self, name: str = "") -> ReplicaStats:
        """A snapshot, of the requests for `name` alone if given; callable from any thread."""
        return ReplicaStats(
            running=asking(self._roster.running, name),
            waiting=asking(self._roster.waiting, name),
            free_blocks=self._cache.blocks.idle,
            total_blocks=self._cache.blocks.total,
            steps=self._steps,
            tokens=self._tokens,
            prefix_tokens=self._cache.found_tokens,
            preemptions=self._next.preemptions,
            raised_tokens=self._cache.raised_tokens,
            draft_tokens=self._drafter.guessed,
            taken_tokens=self._drafter.taken,
            numerics=self.numerics.level,
            fingerprint=self.fingerprint,
            prefill_token_s=self._costs.token_s,
        )

    def prove(self) -> None:
        """See Proving."""
        if self.numerics.tile:
            canary = prove(self._runner, self._cache, self._generation, self.bounds.vocabulary)
            about = (self.prefix_root, canary)
            self.fingerprint = fingerprint(self._runner.device, *about)
            # KV that was computed on another kind of device must not mix with what is computed here.
            self.prefix_root = hashlib.blake2b(self.fingerprint.encode() + self.prefix_root, digest_size=16).digest()

    @property
    def module(self) -> PreTrainedModel:
        """See Replica."""
        return self._runner.module

    def add_adapter(self, adapter: Adapter) -> None:
        """From now on requests may ask for it."""
        self._runner.adapters.add(adapter)

    def remove_adapter(self, name: str) -> list[TokenStep]:
        """End its requests with ERROR and forget it."""
        why = f"{name} was removed from this worker"
        theirs = [generation for generation in self._roster.everyone if generation.request.replica == name]
        steps = self.arrivals.fail(why, name) + [self._drop(one, FinishReason.ERROR, why) for one in theirs]
        self._runner.adapters.remove(name)
        return steps

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self._roster.running or self._roster.waiting)

    def add(self, request: EngineRequest) -> list[TokenStep]:
        """Queue a checked request. One that is complete already finishes at once."""
        generation = self._generation(request)
        finish = generation.finish if request.generated else None
        if finish is not None:
            return [TokenStep(request.request_id, generation.generated, (), finish)]
        self._roster.waiting.append(generation)
        return []

    def adopt(self, former_id: str, request: EngineRequest) -> tuple[int, list[TokenStep]]:
        """See Adopting."""
        former = self._take(former_id)
        if former is None:
            return 0, self.add(request)
        generation = self._generation(request)
        self._cache.inherit(generation, former)
        tokens = generation.kv_len
        last = TokenStep(former_id, former.generated, (), FinishReason.CANCELLED)
        finish = generation.finish if request.generated else None
        if finish is not None:
            self._cache.leave(generation)
            return tokens, [last, TokenStep(request.request_id, generation.generated, (), finish)]
        self._roster.go_on(generation)
        return tokens, [last]

    def warm(self, request: EngineRequest) -> int:
        """See Adopting."""
        generation = self._generation(request, ahead=True)
        self._roster.waiting.append(generation)
        return self.arrivals.lookup(request)

    def warm_on(self, request: EngineRequest) -> int:
        """See Adopting."""
        self.check(request)
        former = self._take(request.request_id)
        if former is None:
            raise UnknownRequest(f"{request.request_id} is not kept here; it may have given way")
        generation = self._generation(request, ahead=True)
        self._cache.inherit(generation, former)
        self._roster.go_on(generation)
        return generation.kv_len

    def cancel(self, request_id: str) -> list[TokenStep]:
        """Drop a request and free its blocks; nothing if it is not here (any more)."""
        for generation in self._roster.everyone:
            if generation.request.request_id == request_id:
                return [self._drop(generation, FinishReason.CANCELLED)]
        return self.arrivals.abort(request_id)

    def fail(self, why: str) -> list[TokenStep]:
        """End every request with ERROR and free all blocks."""
        steps = [*self.arrivals.ended(), *self.arrivals.fail(why)]
        return steps + [self._drop(generation, FinishReason.ERROR, why) for generation in self._roster.everyone]

    def unload(self) -> None:
        """Give back weights and KV memory. The replica is of no use afterwards."""
        self._runner.adapters.clear()
        self._runner.close()
        model.release(self._runner.module)
        self._cache.unload()
        del self._runner

    def step(self) -> list[TokenStep]:
        """Run one forward pass; what it gave each request that reached its last token."""
        started = self._clock()
        plan = self._next.ready()
        spans = self._drafter.extend(plan.spans)
        logits = self._runner.run(spans)
        finished = self._advance(spans)
        self._steps += 1
        steps = self._deliver(finished, logits) if finished else []
        self._learn(plan, self._clock() - started)
        return self.arrivals.ended() + self._kept(spans) + steps

    def _take(self, request_id: str) -> Paged | None:
        return self.arrivals.take(request_id) or self._roster.take(request_id)

    def _generation(self, request: EngineRequest, ahead: bool = False) -> Paged:
        limit, stops = self.bounds.limit(request), self.bounds.stops(request)
        tokens = [*request.prompt_ids, *request.generated]
        root = self._runner.adapters.root(request.replica, self.prefix_root)
        return Paged(request, tokens, limit, stops, self._cache.table(), root=root, ahead=ahead)

    def _advance(self, spans: Iterable[Span]) -> list[Span]:
        """Count and publish what the forward pass wrote, but for drafts; those whose next token can be sampled."""
        ready = []
        for span in spans:
            if span.rows:
                ready.append(span)
            span.generation.kv_len += span.count - len(span.draft)
            self._cache.publish(span.generation)
        return ready

    def _kept(self, spans: Iterable[Span]) -> list[TokenStep]:
        """Those that were computed ahead, and are."""
        done = [span.generation for span in spans if span.generation.ahead and not span.generation.pending]
        for generation in done:
            self._roster.remove(generation)
            self.arrivals.keep(generation)
        return [TokenStep(one.request.request_id, one.generated, ()) for one in done]

    def _learn(self, plan: Plan, took_s: float) -> None:
        """What a token of prefill costs, from a step that was mostly prefill."""
        tokens = sum(span.count for span in plan.spans)
        if tokens > 2 * len(plan.spans):
            self._costs.computed(tokens, took_s)

    def _deliver(self, spans: list[Span], logits: Tensor) -> list[TokenStep]:
        steps = verify(spans, logits)
        for span, step in zip(spans, steps, strict=True):
            if span.draft:
                self._drafter.settle(span, len(step.tokens))
            if step.finish is not None:
                self._forget(span.generation)
        self._tokens += sum(len(step.tokens) for step in steps)
        return steps

    def _drop(self, generation: Paged, finish: FinishReason, error: str = "") -> TokenStep:
        self._forget(generation)
        return TokenStep(generation.request.request_id, generation.generated, (), finish, error)

    def _forget(self, generation: Paged) -> None:
        self._cache.leave(generation)
        self._roster.remove(generation)
