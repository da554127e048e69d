"""The engine: one thread that owns torch and steps the replicas in turn. Other threads hand it commands and get
tokens by a callback; it sleeps when there is nothing to do."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

import torch

from mesh.requests import Pooling
from services.worker.engine.adapter import Adapter
from services.worker.engine.embed_queue import Job
from services.worker.engine.errors import EngineClosed, EngineError, UnknownReplica, UnknownRequest
from services.worker.engine.lending import Elastic, balance
from services.worker.engine.replica import Replica
from services.worker.engine.request import EngineRequest, EngineStats, TokenStep
from services.worker.engine.residents import Resident, Residents

log = logging.getLogger(__name__)
T = TypeVar("T")
EMBED_TOKENS = 512  # of one step, padding included: bounds how long other requests wait for it


class Engine:
    """`on_steps` is called on the engine's thread, once a step, with everything that the step produced. It must
    not block or raise. `threads` bounds torch's own threads for this engine; None leaves them as they are.
    `max_requests` bounds what each replica may hold, waiting and running. `clock` measures steps, in seconds."""

    def __init__(
        self,
        on_steps: Callable[[list[TokenStep]], None],
        *,
        threads: int | None = None,
        max_requests: int = 1024,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._on_steps = on_steps
        self._threads = threads
        self._clock = clock
        self._wake = threading.Condition()  # guards the three below
        self._commands: deque[Callable[[], list[TokenStep]]] = deque()
        self._residents = Residents(max_requests)
        self._closing = False
        self._served_s = 0.0  # virtual time of the last step
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Fail what still runs with ERROR, unload every replica, and join the thread."""
        with self._wake:
            for name in self._residents.names:
                self._withdraw(name)
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def add_replica(self, replica: Replica, weight: float = 1.0) -> None:
        """From now on requests may name it. DuplicateReplica if the name is taken. Among those with work, it gets the
        engine's time in proportion to `weight`."""
        with self._wake:
            self._refuse_when_closing()
            self._residents.add(Resident(replica, weight, replica.kv_share if isinstance(replica, Elastic) else None))

    def set_weight(self, name: str, weight: float) -> None:
        """Change a replica's part of the engine's time, from its next step on."""
        with self._wake:
            self._residents.of(name).weight = weight

    def remove_replica(self, name: str) -> Future[None]:
        """Refuse new requests for it now and end running ones with ERROR; done when its memory is given back."""
        with self._wake:
            self._refuse_when_closing()
            return self._withdraw(name)

    def add_adapter(self, replica: str, adapter: Adapter) -> Future[None]:
        """Put an adapter on a replica, whose requests go on; done when requests may name it. Raises UnknownReplica or
        DuplicateReplica; the future may raise UnsupportedAdapter or UnknownReplica."""
        with self._wake:
            self._refuse_when_closing()
            self._residents.check_free(adapter.name)
            added: Future[None] = _begun()
            self._post(partial(self._adapt, self._residents.of(replica), adapter, added))
            return added

    def remove_adapter(self, name: str) -> Future[None]:
        """Refuse new requests for it now and end running ones with ERROR; done when its memory is given back."""
        with self._wake:
            self._refuse_when_closing()
            resident = self._residents.remove(name)
            removed: Future[None] = _begun()
            self._post(partial(self._strip, resident, name, removed))
            return removed

    def submit(self, request: EngineRequest) -> None:
        """Queue a request. Raises RequestRefused, UnknownReplica, DuplicateRequest or QueueFull, and then nothing is
        queued; whatever goes wrong later comes as a TokenStep with finish ERROR."""
        with self._wake:
            self._refuse_when_closing()
            resident = self._residents.of(request.replica)
        resident.replica.check(request)
        with self._wake:
            self._residents.take_in(request, resident)
            self._post(partial(self._add, resident, request))

    def cancel(self, request_id: str) -> None:
        """Stop a request before the next step. Its last TokenStep says CANCELLED; unknown ids are ignored."""
        with self._wake, suppress(UnknownRequest):
            self._post(partial(self._residents.home(request_id).replica.cancel, request_id))

    def ask_replica(self, name: str, question: Callable[[Replica], T]) -> Future[T]:
        """Have the engine's thread put a question to a replica, between two steps."""
        with self._wake:
            self._refuse_when_closing()
            return self._promise(self._residents.of(name), lambda replica: (question(replica), []))

    def ask(self, request_id: str, question: Callable[[Replica], T]) -> Future[T]:
        """As `ask_replica`, of the replica that a request is on; UnknownRequest if it is on none (any more)."""
        with self._wake:
            self._refuse_when_closing()
            return self._promise(self._residents.home(request_id), lambda replica: (question(replica), []))

    def expect(self, request: EngineRequest, begin: Callable[[Replica], tuple[T, list[TokenStep]]]) -> Future[T]:
        """Take in a request that `begin` makes room for, instead of queueing it; raises as `submit` does. If `begin`
        fails, the request is not here. What it gives besides an answer are the last steps of requests."""
        with self._wake:
            self._refuse_when_closing()
            resident = self._residents.of(request.replica)
        resident.replica.check(request)
        with self._wake:
            self._residents.take_in(request, resident)
            return self._promise(resident, partial(self._begin, request, begin))

    def embed(self, name: str, inputs: Sequence[Sequence[int]], pooling: Pooling) -> Job:
        """Queue inputs to embed. Raises as submit() does; `done` of what it returns gets their vectors."""
        with self._wake:
            self._refuse_when_closing()
            resident = self._residents.of(name)
        for tokens in inputs:
            resident.replica.check_input(tokens)
        job = Job(name, inputs, pooling)
        with self._wake:
            self._residents.check_still(name, resident)
            self._post(partial(self._embed, resident, job))
        return job

    def stats(self) -> EngineStats:
        """Every resident replica's load and counters."""
        with self._wake:
            replicas = self._residents.by_name
        return EngineStats({name: replica.stats(name) for name, replica in replicas.items()})

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise EngineClosed("the engine is closing")

    def _promise(self, resident: Resident, act: Callable[[Replica], tuple[T, list[TokenStep]]]) -> Future[T]:
        future: Future[T] = _begun()
        self._post(partial(self._answer, resident, act, future))
        return future

    def _withdraw(self, name: str) -> Future[None]:
        removed: Future[None] = _begun()
        self._post(partial(self._remove, self._residents.remove(name), removed))
        return removed

    def _post(self, command: Callable[[], list[TokenStep]]) -> None:
        self._commands.append(command)
        self._wake.notify()

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            going = True
            while going:
                try:
                    going = self._turn()
                except Exception:  # the callback's: what it was given is lost to it, the other requests are not
                    log.exception("on_steps raised")

    def _turn(self) -> bool:
        """Carry out one command, else one step; waits if there is neither. False when it is time to end."""
        with self._wake:
            while not (self._commands or self._closing or self._next()):
                self._wake.wait()
            command = self._commands.popleft() if self._commands else None
            resident = self._next()
            ending = self._closing and command is None
        if command is not None:
            self._emit(command())
        elif resident is not None:
            self._emit(self._step(resident))
        return not ending

    def _next(self) -> Resident | None:
        """The one served least among those with work."""
        busy = [resident for resident in self._residents if resident.has_work]
        return min(busy, key=lambda resident: resident.served_s) if busy else None

    def _step(self, resident: Resident) -> list[TokenStep]:
        started = self._clock()
        self._served_s = resident.served_s
        try:
            self._lend(resident)
            return resident.step()
        except Exception as error:  # out of memory, a kernel's refusal, ...: this replica's requests pay for it
            log.exception("step failed", extra={"model": resident.replica.name})
            return resident.replica.fail(f"the step failed: {type(error).__name__}: {error}")
        finally:
            resident.served_s += (self._clock() - started) / resident.weight

    def _lend(self, resident: Resident) -> None:
        """Divide KV memory anew if this replica wants more."""
        if resident.kv_share is not None and resident.kv_share.presses:
            self._emit(self._balance())

    def _balance(self) -> list[TokenStep]:
        with self._wake:
            return balance([one.kv_share for one in self._residents if one.kv_share is not None])

    def _add(self, resident: Resident, request: EngineRequest) -> list[TokenStep]:
        self._catch_up(resident)
        return resident.replica.add(request)

    def _answer(
        self, resident: Resident, act: Callable[[Replica], tuple[T, list[TokenStep]]], future: Future[T]
    ) -> list[TokenStep]:
        self._catch_up(resident)
        try:
            answer, steps = act(resident.replica)
        except Exception as error:  # whoever asked hears of it
            future.set_exception(error)
            return []
        future.set_result(answer)
        return steps

    def _begin(
        self, request: EngineRequest, begin: Callable[[Replica], tuple[T, list[TokenStep]]], replica: Replica
    ) -> tuple[T, list[TokenStep]]:
        try:
            return begin(replica)
        except BaseException:
            with self._wake:
                self._residents.let_go(request.request_id)
            raise

    def _embed(self, resident: Resident, job: Job) -> list[TokenStep]:
        self._catch_up(resident)
        resident.embeddings.add(job, EMBED_TOKENS)
        return []

    def _catch_up(self, resident: Resident) -> None:
        """Idle time earns no credit."""
        if not resident.has_work:
            resident.served_s = max(resident.served_s, self._served_s)

    def _remove(self, resident: Resident, removed: Future[None]) -> list[TokenStep]:
        try:
            gone = f"{resident.replica.name} was removed from this worker"
            resident.embeddings.fail(UnknownReplica(gone))
            self._emit(resident.replica.fail(gone))
        finally:
            resident.replica.unload()
            try:
                self._emit(self._balance())  # what the others were lent of it goes with it
            finally:
                removed.set_result(None)
        return []

    def _adapt(self, resident: Resident, adapter: Adapter, added: Future[None]) -> list[TokenStep]:
        try:
            resident.replica.add_adapter(adapter)
            with self._wake:
                self._residents.adapt(adapter.name, resident)
        except EngineError as error:
            added.set_exception(error)
        else:
            added.set_result(None)
        return []

    def _strip(self, resident: Resident, name: str, removed: Future[None]) -> list[TokenStep]:
        try:
            self._emit(resident.replica.remove_adapter(name))
        finally:
            removed.set_result(None)
        return []

    def _emit(self, steps: list[TokenStep]) -> None:
        if not steps:
            return
        with self._wake:
            self._residents.finished(steps)
        self._on_steps(steps)


def _begun() -> Future[T]:
    """What has begun cannot be cancelled."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    return future
