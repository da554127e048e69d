"""The adapters on one base. What each module gives is changed for the rows of requests that ask for one, so that a
batch may mix the base's own requests with those of several adapters."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from services.worker.engine.adapter import Adapter, Change
from services.worker.engine.errors import UnsupportedAdapter


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a batch, and what they ask for: the base or an adapter, by the engine's name of it."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class _Segment:
    """Consecutive rows that one adapter changes; without a count, however many there are."""

    changes: Mapping[str, Change]
    start: int = 0
    count: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """A view of them."""
        return tensor if self.count is None else tensor.narrow(0, self.start, self.count)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How many rows a module gets, if that is known, and which of them are changed."""

    rows: int | None
    segments: Sequence[_Segment]


@dataclass(frozen=True, slots=True)
class _Step:
    """A forward pass. With `whole`, a change is computed for all rows and kept for some, so that what a row gets
    depends on no other row. `changed` are the modules that have been called."""

    all: _Layout
    at_head: _Layout
    whole: bool
    changed: set[str] = field(default_factory=set)


class Adapters:
    """Those on one base, whose weights are assigned. Only the thread that runs the base may call what changes it."""

    def __init__(self, base: PreTrainedModel) -> None:
        self.base = base
        self._homes, head = dict(base.named_modules()), base.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._head = next((path for path, home in self._homes.items() if home is head), None)
        self._here: dict[str, Adapter] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._step: _Step | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of those that are here."""
        return tuple(self._here)

    def root(self, name: str, base_root: bytes) -> bytes:
        """Parent of the first block's address for requests that ask for `name`: KV of one adapter is no other's."""
        adapter = self._here.get(name)
        if adapter is None:
            return base_root
        return hashlib.blake2b(base_root + adapter.digest.encode(), digest_size=16).digest()

    def add(self, adapter: Adapter) -> None:
        """From the next step on, rows of this name are changed."""
        self._here[adapter.name] = adapter
        self._hook()

    def remove(self, name: str) -> None:
        """Forgets it; modules that no other adapter changes are as they were."""
        self._here.pop(name, None)
        self._hook()

    def clear(self) -> None:
        """Forgets all: the base is as it was."""
        self._here.clear()
        self._hook()

    @contextmanager
    def over(self, rows: Sequence[Rows], at_head: Sequence[Rows], *, whole: bool = False) -> Iterator[None]:
        """A forward pass over `rows`, of which `at_head` reach the head.

        UnsupportedAdapter if the pass has gone around a module that is to be changed.
        """
        with self._during(_Step(self._layout(rows), self._layout(at_head), whole)):
            yield

    @contextmanager
    def of_one(self, name: str, *, head: bool = True) -> Iterator[None]:
        """A forward pass all of whose rows ask for `name`, as many as the model makes of them. See `over`."""
        adapter = self._here.get(name)
        layout = _Layout(None, [_Segment(adapter.changes)] if adapter else [])
        with self._during(_Step(layout, layout if head else _Layout(0, []), whole=False)):
            yield

    @contextmanager
    def _during(self, step: _Step) -> Iterator[None]:
        if not step.all.segments:
            yield
            return
        self._step = step
        try:
            yield
        finally:
            self._step = None
        missed = {path for segment in step.all.segments for path in segment.changes} - step.changed
        if step.at_head.rows == 0:
            missed.discard(self._head or "")
        if missed:
            raise UnsupportedAdapter(f"the model does not call {min(missed)}, which an adapter changes")

    def _layout(self, rows: Sequence[Rows]) -> _Layout:
        segments, start = list[_Segment](), 0
        for name, run in groupby(rows, key=attrgetter("name")):
            count = sum(one.count for one in run)
            if name in self._here:
                segments.append(_Segment(self._here[name].changes, start, count))
            start += count
        return _Layout(start, segments)

    def _hook(self) -> None:
        """Hooks the modules that some adapter changes, and no others."""
        wanted = {path for adapter in self._here.values() for path in adapter.changes}
        for path in self._hooks.keys() - wanted:
            self._hooks.pop(path).remove()
        for path in wanted - self._hooks.keys():
            self._hooks[path] = self._homes[path].register_forward_hook(partial(self._change, path))

    def _change(self, path: str, home: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        """What torch calls after each forward pass of a hooked module."""
        step = self._step
        if step is None:
            return
        step.changed.add(path)
        if len(given) != 1:
            raise UnsupportedAdapter(f"{path}, which an adapter changes, takes more than its rows")
        layout = step.at_head if path == self._head else step.all
        x, out = _by_row(given[0], layout.rows), _by_row(out, layout.rows)
        for segment in layout.segments:
            change = segment.changes.get(path)
            if change is not None:
                _apply(change, x, out, segment, whole=step.whole)


def _by_row(tensor: Tensor, rows: int | None) -> Tensor:
    """A view [rows, width], or [rows] of token ids, without the dimensions of size 1 that lead."""
    wanted, found = 2 if tensor.is_floating_point() else 1, tensor
    while found.dim() > wanted and len(found) == 1:
        found = found[0]
    if found.dim() != wanted or rows not in (None, len(found)):
        raise UnsupportedAdapter(f"a module that an adapter changes gets {list(tensor.shape)} for {rows} rows")
    return found


def _apply(change: Change, x: Tensor, out: Tensor, segment: _Segment, *, whole: bool) -> None:
    if whole:
        changed = out.clone()
        change.apply(x, changed)
        segment.of(out).copy_(segment.of(changed))
    else:
        change.apply(segment.of(x), segment.of(out))
