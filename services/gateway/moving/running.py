"""A request's answers while they run: at which worker, and the moves that take them to others, one after another."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import structlog

from mesh.moves import Moved, Relocation
from mesh.requests import MoveKind, Placement
from services.gateway.exactness import Numerics, are_exact
from services.gateway.moving import measures
from services.gateway.moving.errand import Errand
from services.gateway.moving.limits import MoveLimits
from services.gateway.moving.outcome import outcome_of
from services.gateway.moving.passage import Passage
from services.gateway.moving.tenure import Tenure
from services.gateway.moving.way import Over, Party, Way
from services.gateway.owners import Handover
from services.gateway.places import Events
from services.gateway.relay import Lines
from services.gateway.strand import Strand
from services.gateway.trial import Trial

log = structlog.get_logger()
REPORT_S = 1.0  # that a request which has ended waits for its scheduler to hear of its move


class Running:
    """Of one try. `at` is where they run now, which the trial is told of, too."""

    def __init__(self, trial: Trial, at: Placement, lines: Lines, numerics: Numerics, limits: MoveLimits) -> None:
        self.at = at
        self._trial, self._lines, self._numerics, self._limits = trial, lines, numerics, limits
        self._tenures: list[Tenure] = []
        self._all_granted = asyncio.Event()
        self._busy = asyncio.Lock()  # while a move is under way

    def grant(self, strands: Iterable[Strand], handover: Handover | None, granted: ExitStack) -> list[Strand]:
        """Has the worker answer them, each until it ends, or until `granted` is closed."""
        strands, line = list(strands), self._lines.to(self.at.worker_id, self.at.address)
        for strand in strands:
            granted.enter_context(strand.running)
            self._tenures.append(tenure := Tenure(strand.journal, line, handover))
            strand.running.callback(tenure.end)
        return strands

    def all_granted(self) -> None:
        """No answer is granted later."""
        self._all_granted.set()

    @asynccontextmanager
    async def moving(self, errands: Events) -> AsyncIterator[None]:
        """Carries out what the scheduler asks for while the block runs, or until all answers are there: then the place
        is given back, though their client may not have read them."""
        task = asyncio.create_task(self._run(errands), name="moves")
        task.add_done_callback(_complain)
        try:
            yield
        finally:
            self._all_granted.set()
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_S), self._busy:
                        pass  # a move whose answers have ended ends by itself, and its scheduler is to hear how
            finally:  # a client that leaves meanwhile cancels us
                task.cancel()
                await asyncio.wait([task])

    async def _run(self, errands: Events) -> None:
        async with asyncio.TaskGroup() as group:
            moves = group.create_task(self._carry_out(errands), name="errands")
            for journal in self._trial.journals:
                await journal.over.wait()
            async with self._busy:
                moves.cancel()
        await errands.aclose()

    async def _carry_out(self, errands: Events) -> None:
        async for errand in errands:
            if isinstance(errand, Errand):
                async with self._busy:
                    await errand.ended(await self._carried_out(errand.relocation))

    async def _carried_out(self, relocation: Relocation) -> Moved:
        """How it went, or did not. Several answers move when all have been granted; one alone need not have begun."""
        began_s = asyncio.get_running_loop().time()
        if len(self._trial.strands) > 1:
            await self._all_granted.wait()
        party, former, numerics = Party(), self.at, self._trial.numerics
        going = [tenure for tenure in self._tenures if not tenure.over and relocation.target.fence != former.fence]
        passages = [self._passage(tenure, relocation, party) for tenure in going]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_ended(passage)) for passage in passages]
        outcome = outcome_of(relocation, passages, [over for task in tasks if (over := task.result())], began_s)
        if not outcome.moved:
            self._arrive(former, numerics)
        _note(outcome, relocation, former)
        return outcome

    def _arrive(self, place: Placement, numerics: str) -> None:
        self.at = replace(place, start_kind=self.at.start_kind, times=self.at.times)
        self._trial.place, self._trial.numerics = self.at, numerics

    def _passage(self, tenure: Tenure, relocation: Relocation, party: Party) -> Passage:
        target = relocation.target
        way = Way(
            relocation.move_id,
            self._lines.to(target.worker_id, target.address),
            target.address,
            relocation.reason,
            relocation.kind or (MoveKind.KV if tenure.journal.tokens else MoveKind.TOKENS),
            partial(are_exact, self._trial.numerics or self._numerics.of(self._trial.asked.model, self.at)),
            partial(self._arrive, target),
        )
        return Passage(tenure, way, self._limits, party)


async def _ended(passage: Passage) -> Over | None:
    try:
        await passage.run()
    except Over as over:
        return over
    return None


def _note(outcome: Moved, relocation: Relocation, former: Placement) -> None:
    measures.count(outcome, relocation.reason)
    log.info(
        "request moved" if outcome.moved else "request did not move",
        move=outcome.move_id,
        source=former.worker_id,
        target=relocation.target.worker_id,
        kind=outcome.kind,
        failure=outcome.failure,
    )


def _complain(task: asyncio.Task[None]) -> None:
    """A fault of ours in a move is no reason to end an answer."""
    if not task.cancelled() and (error := task.exception()):
        log.error("a move went wrong", exc_info=error)
