"""One thing timed part by part, in a child process. No torch here: importing it is one of the parts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Part:
    """What it took, by the wall and of all of the process's threads."""

    name: str
    elapsed_s: float
    cpu_s: float


PARTS: TypeAdapter[tuple[Part, ...]] = TypeAdapter(tuple[Part, ...])


class Parts:
    """Timed one after the other."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """The block is a part."""
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        yield
        self._parts.append(Part(name, time.perf_counter() - began_s, time.process_time() - began_cpu_s))

    def json(self) -> str:
        """In order."""
        return PARTS.dump_json(tuple(self._parts)).decode()
