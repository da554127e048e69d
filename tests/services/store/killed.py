"""python -m tests.services.store.killed WORK SCRATCH: works on a checkpoint's directory in a child killed at its
first call of a C function (every system call is one), then again in one that is killed at its second, and so on until
one lives to the end. After each, what the directory claims to hold must be there. Prints how many were killed.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType

from mesh.checkpoint.staging import digests_in, sweep
from mesh.checkpoint.verify import check_unit, load_manifest, verify_checkpoint
from services.store.landing import Landing
from services.store.learn import Outline, publish_outline
from services.store.presence import JOURNAL, Presence
from tests.services.store.made import CONFIG, Made, make

PARTS = ((4096 * 3 + 5, 100), (4096, 5000))
UNITS = frozenset(range(4))


def fresh(root: Path) -> Made:
    """A checkpoint of four small units."""
    return make(root, seed=1, part_units=PARTS)


def claims(made: Made) -> frozenset[int]:
    """What a store that starts now would serve; each of them is right."""
    there = Presence(made.directory, load_manifest(made.directory))
    for unit in there.units:
        at = made.manifest.units[unit]
        data = (made.directory / made.manifest.parts[at.part].file).read_bytes()[at.offset : at.offset + at.bytes]
        check_unit(made.manifest, unit, memoryview(data))
    return there.units


def fetch(made: Made) -> None:
    """Units 1 and 3 arrive, as they do from a source."""
    there = Presence(made.directory, made.manifest)
    for unit in (1, 3):
        with (made.directory / f"part-00{made.manifest.units[unit].part}.bin").open("r+b") as file:
            landing = Landing(made.manifest, unit, there.extent((unit,)), file.fileno(), None)
            for half in (made.unit(unit)[:40], made.unit(unit)[40:]):
                landing.put(half)
            landing.finish()
        there.gain((unit,))


def _evict_some(made: Made, units: tuple[int, ...]) -> None:
    Presence(made.directory, made.manifest).drop(units)


def _prepared(made: Made, *gone: int) -> None:
    if gone:
        _evict_some(made, gone)


def evict(root: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two units of a whole checkpoint leave."""
    made = fresh(root)

    def check() -> None:
        assert claims(made) in (UNITS, {0, 2})
        assert (made.directory / JOURNAL).exists() or verify_checkpoint(made.directory)

    return lambda: _evict_some(made, (1, 3)), check


def evict_more(root: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """One more leaves."""
    made = fresh(root)
    _prepared(made, 1)

    def check() -> None:
        assert claims(made) in (UNITS - {1}, {0, 2})

    return lambda: _evict_some(made, (3,)), check


def complete(root: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """The last two units come, and with them the journal's end."""
    made = fresh(root)
    _prepared(made, 1, 3)

    def check() -> None:
        assert claims(made) in ({0, 2}, {0, 1, 2}, UNITS)
        fetch(made)  # whatever was left undone
        assert verify_checkpoint(made.directory) == made.manifest

    return lambda: fetch(made), check


def learn(root: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """A checkpoint becomes known."""
    made = fresh(root.parent / f"{root.name}.elsewhere")
    there = Made(root / made.digest, made.manifest, made.parts)
    root.mkdir()

    def check() -> None:
        sweep(root)
        assert not list(root.glob(".tmp*"))
        if digests_in(root):
            assert claims(there) == frozenset()
            fetch(there)
            assert claims(there) == {1, 3}

    return lambda: publish_outline(root, Outline(made.manifest, {"config.json": CONFIG})), check


WORKS = {"evict": evict, "evict_more": evict_more, "complete": complete, "learn": learn}


def die_at(call: int) -> Callable[[FrameType, str, object], None]:
    """A profile function that ends the process before that call of a C function."""
    left = call

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if event == "c_call":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def main(work: str, scratch: Path) -> None:
    """Until a child lives to the end."""
    for call in count(1):
        root = scratch / str(call)
        do, check = WORKS[work](root)
        child = os.fork()
        if not child:
            sys.setprofile(die_at(call))
            do()
            sys.setprofile(None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check()
        shutil.rmtree(root)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            print(call - 1)  # noqa: T201 - the answer
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
