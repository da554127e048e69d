"""A replica on the opaque runner: sequences take turns, one forward pass each, in as much memory as it was given."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from mesh.facts import NumericsLevel, RunnerKind
from mesh.requests import FinishReason, Pooling
from services.worker.engine import model
from services.worker.engine.adapter import Adapter
from services.worker.engine.adapters import Adapters
from services.worker.engine.batch import Limits
from services.worker.engine.bounds import Bounds
from services.worker.engine.delivery import deliver
from services.worker.engine.errors import (
    ImportRefused,
    LayoutMismatch,
    NotExportable,
    NumericsNotHeld,
    PoolTooSmall,
    StateMismatch,
    UnknownRequest,
)
from services.worker.engine.fingerprint import fingerprint
from services.worker.engine.generation import asking
from services.worker.engine.inputs import check_tokens
from services.worker.engine.numerics import FAST, Numerics
from services.worker.engine.opaque import OpaqueRunner
from services.worker.engine.opaque_passes import OpaquePasses
from services.worker.engine.opaque_proof import Proof
from services.worker.engine.opaque_seats import Seats
from services.worker.engine.opaque_sequence import Opaque
from services.worker.engine.opaque_state import HeldState, StateRoom, filled, leaves, taken, trim
from services.worker.engine.pooling import pooled
from services.worker.engine.request import EngineRequest, ReplicaStats, TokenStep


class OpaqueReplica:
    """`module` has its weights, and `proof` was made with it. Caches take at most `kv_bytes`, as far as the proof's
    footprint tells. A pass has one sequence, so bits never depend on the batch; above the level FAST, what is computed
    anew goes through the very passes of the first time, too."""

    def __init__(
        self,
        name: str,
        module: PreTrainedModel,
        kv_bytes: int,
        proof: Proof,
        *,
        eos_token_ids: Iterable[int] | None = None,
        limits: Limits | None = None,
        numerics: Numerics = FAST,
    ) -> None:
        memory_tokens = proof.footprint.tokens_in(kv_bytes)
        if memory_tokens < 2:
            need = proof.footprint.bytes(2)
            raise PoolTooSmall(f"{kv_bytes} bytes of KV hold no sequence of this model: the shortest takes {need}")
        self.name = name
        self.module = module
        self.limits = limits or Limits()
        self.fingerprint = ""
        self._proof, self._numerics = proof, numerics
        if module.config._attn_implementation != proof.attention:
            module.set_attn_implementation(proof.attention)
        self._runner = OpaqueRunner(module, proof.loose)
        self._adapters = Adapters(module)
        self._bounds = Bounds.of(
            name, module, memory_tokens, eos_token_ids=eos_token_ids, stretches=self._runner.stretches
        )
        self._passes = OpaquePasses.of(numerics, self._runner, proof, self.limits.batch_tokens)
        self._seats = Seats(proof.footprint, kv_bytes, self.limits.running)
        self._steps = self._tokens = 0

    def check(self, request: EngineRequest) -> None:
        """Raise RequestRefused if this replica can never run `request`, however idle. Changes nothing."""
        self._bounds.check(request)

    def stats(self, name: str = "") -> ReplicaStats:
        """See Replica. There are no blocks here."""
        return ReplicaStats(
            running=asking(self._seats.running, name),
            waiting=asking(self._seats.waiting, name),
            free_blocks=0,
            total_blocks=0,
            steps=self._steps,
            tokens=self._tokens,
            prefix_tokens=0,
            preemptions=self._seats.preemptions,
            runner=RunnerKind.OPAQUE,
            numerics=self._numerics.level,
            fingerprint=self.fingerprint,
        )

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self._seats.running or self._seats.waiting or self._seats.kept.has_news)

    def add(self, request: EngineRequest) -> list[TokenStep]:
        """Queue a checked request. One that is complete already finishes at once."""
        return self._queue(self._generation(request))

    def cancel(self, request_id: str) -> list[TokenStep]:
        """Drop a request and free its cache; nothing if it is not here (any more)."""
        return [self._drop(g, FinishReason.CANCELLED) for g in self._seats.all if g.request.request_id == request_id]

    def fail(self, why: str) -> list[TokenStep]:
        """End every request with ERROR and free all caches."""
        return self._seats.kept.told() + [
            self._drop(generation, FinishReason.ERROR, why) for generation in self._seats.all
        ]

    def unload(self) -> None:
        """Give back the weights. The replica is of no use afterwards."""
        self._adapters.clear()
        self._runner.release()
        model.release(self.module)
        del self._runner, self._adapters, self.module

    def step(self) -> list[TokenStep]:
        """Run one forward pass, for whoever has waited longest; its next token, if all others are computed."""
        self._seats.make_room()
        for one in [one for one in self._seats.running if one.ahead and one.seen >= self._passes.goal(one)]:
            self._seats.running.remove(one)
            self._seats.kept.ready(one)
        told = self._seats.kept.told()
        return told + self._advance(min(self._seats.running, key=lambda one: one.turn)) if self._seats.running else told

    def _advance(self, generation: Opaque) -> list[TokenStep]:
        count = self._passes.count(generation)
        self._steps += 1
        generation.turn = self._steps
        end = generation.seen + count
        with self._adapters.of_one(generation.request.replica):
            logits, generation.held = self._runner.run(generation.tokens[:end], count, generation.held)
        generation.seen = end
        if count > 1:
            trim(generation.held)
        return [] if generation.pending else self._deliver(generation, logits)

    def prove(self) -> None:
        """See Proving. A canary, alone and with another sequence in between, must give the same bits."""
        if self._numerics.level is NumericsLevel.FAST:
            return
        alone, among = self._canary(None), self._canary([7919 * i % self._bounds.vocabulary for i in range(1, 20)])
        if alone != among:
            raise NumericsNotHeld(f"{self.name} gives other bits when other sequences run; deploy it at level fast")
        self.fingerprint = fingerprint(
            self.module.device, repr((self._numerics, self._passes.most_tokens)).encode(), alone
        )

    def _canary(self, other: list[int] | None) -> bytes:
        """Logits of a short prompt's last token and of the next one, `other` being run before that."""
        ids = [104729 * i % self._bounds.vocabulary for i in range(1, 8)]
        first, held = self._runner.run(ids[:6], 6, None)
        if other:
            self._runner.run(other, len(other), None)
        second, _ = self._runner.run(ids, 1, held)
        return b"".join(row.float().cpu().numpy().tobytes() for row in (first, second))

    def add_adapter(self, adapter: Adapter) -> None:
        """See Replica."""
        self._adapters.add(adapter)

    def remove_adapter(self, name: str) -> list[TokenStep]:
        """See Replica."""
        why = f"{name} was removed from this worker"
        steps = [self._drop(g, FinishReason.ERROR, why) for g in self._seats.all if g.request.replica == name]
        self._adapters.remove(name)
        return steps

    def check_input(self, tokens: Sequence[int]) -> None:
        """See Replica."""
        check_tokens(tokens, self._bounds.vocabulary, self._bounds.max_positions)

    def embed(self, name: str, inputs: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """See Replica. Each input goes alone."""
        hidden = [self._hidden(name, one) for one in inputs]
        return pooled(torch.cat(hidden), [len(one) for one in inputs], pooling)

    def _hidden(self, name: str, tokens: Sequence[int]) -> Tensor:
        """[tokens, width], before the head."""
        rows = torch.tensor([tokens], device=self.module.device)
        with self._adapters.of_one(name, head=False):
            hidden: Tensor = self.module.base_model(input_ids=rows, use_cache=False)[0][0]
        return hidden

    @property
    def _layout(self) -> bytes:
        """Of its sequences' states: which numbers and tensors there are, and what their bits depend on."""
        paths = sorted(leaf.path for leaf in leaves(self._proof.blank))
        about = repr((transformers.__version__, paths, self._numerics, self.fingerprint))
        return hashlib.blake2b(about.encode(), digest_size=16).digest()

    def export_state(self, request_id: str) -> HeldState:
        """See Holding."""
        for one in [*self._seats.running, *self._seats.waiting]:
            if one.request.request_id == request_id:
                if one.held is None:
                    raise NotExportable(f"nothing of {request_id} is computed here now; send its tokens")
                request = replace(one.request, generated=tuple(one.answer))
                return taken(one.held, request, self._layout, tuple(one.tokens[: one.seen]))
        raise UnknownRequest(f"request {request_id} does not run here; it may have ended")

    def reserve_state(self, request: EngineRequest) -> StateRoom:
        """See Holding."""
        generation = self._generation(request)
        if self._seats.taken:
            raise ImportRefused(f"all {self.limits.running} slots of {request.replica} are taken; move it elsewhere")
        if not self._seats.fits(generation, self._seats.holding):
            raise ImportRefused(f"{request.replica} has no memory for another sequence now; move it elsewhere")
        self._seats.kept.put(generation)
        return StateRoom(self._layout, self._proof.kinds, self._proof.footprint.bytes(generation.limit))

    def import_state(self, state: HeldState) -> None:
        """See Holding."""
        generation, seen = self._seats.kept.find(state.request.request_id), len(state.seen)
        tokens = [*state.request.prompt_ids, *state.request.generated]
        if state.layout != self._layout:
            raise LayoutMismatch(
                f"the state of {state.request.request_id} was made otherwise than here; send the tokens"
            )
        if not 0 < seen < len(tokens) or list(state.seen) != tokens[:seen]:
            raise StateMismatch(f"the state of {state.request.request_id} is not of its tokens; send these alone")
        generation.held = filled(self._proof.blank, self._proof.kinds, state, self.module.device)
        generation.tokens, generation.seen = tokens, seen

    def adopt(self, former_id: str, request: EngineRequest) -> tuple[int, list[TokenStep]]:
        """See Adopting."""
        former = self._seats.take(former_id)
        if former is None:
            return 0, self.add(request)
        generation = self._generation(request)
        steps = [former.ended(FinishReason.CANCELLED)]
        finish = generation.finish if request.generated else None
        if finish is not None:
            return 0, [*steps, generation.ended(finish)]
        steps += generation.inherit(former)
        self._seats.waiting.appendleft(generation)
        return generation.seen, steps

    def warm(self, request: EngineRequest) -> int:
        """See Adopting."""
        self._seats.waiting.append(self._generation(request, ahead=True))
        return 0

    def warm_on(self, request: EngineRequest) -> int:
        """See Adopting."""
        self.check(request)
        former = self._seats.take(request.request_id)
        if former is None:
            raise UnknownRequest(f"{request.request_id} is not kept here; it may have given way")
        generation = self._generation(request, ahead=True)
        generation.inherit(former)
        self._seats.waiting.appendleft(generation)
        return generation.seen

    def _generation(self, request: EngineRequest, ahead: bool = False) -> Opaque:
        tokens = [*request.prompt_ids, *request.generated]
        return Opaque(request, tokens, self._bounds.limit(request), self._bounds.stops(request), ahead=ahead)

    def _queue(self, generation: Opaque) -> list[TokenStep]:
        finish = generation.finish if generation.request.generated else None
        if finish is not None:
            return [TokenStep(generation.request.request_id, generation.generated, (), finish)]
        self._seats.waiting.append(generation)
        return []

    def _deliver(self, generation: Opaque, logits: Tensor) -> list[TokenStep]:
        steps = deliver([generation], logits[None])
        generation.likely += steps[0].logprobs
        self._tokens += len(steps[0].tokens)
        if steps[0].finish is not None:
            self._seats.running.remove(generation)
        return steps

    def _drop(self, generation: Opaque, finish: FinishReason, error: str = "") -> TokenStep:
        self._seats.take(generation.request.request_id)
        return generation.ended(finish, error)
