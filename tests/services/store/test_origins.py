"""Looking at origins leaves none open that nobody is going to close."""

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mesh.checkpoint.origins.local import LocalOrigin
from services.store import origins as module
from services.store.origins import Origins
from tests.services.store.made import Made, make


class Slow(LocalOrigin):
    """One that answers when told, and says when it has been closed."""

    def __init__(self, path: str) -> None:
        super().__init__(Path(path))
        self.may, self.closed = threading.Event(), threading.Event()

    def size(self, name: str) -> int | None:
        """When told."""
        assert self.may.wait(30)
        return super().size(name)

    def close(self) -> None:
        """Lets go of files."""
        super().close()
        self.closed.set()


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint that lies somewhere else."""
    return make(tmp_path, seed=1)


async def test_one_that_answers_too_late_is_closed_when_it_does(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    slow = Slow(str(made.directory))
    async with AsyncExitStack() as stack:
        looked = await Origins([str(made.directory.parent)], lambda _: slow).knowing(made.digest, stack)
        assert not looked.origins
        assert "does not answer" in looked.failures[0].message
        assert not slow.closed.is_set()
        slow.may.set()
        assert await asyncio.to_thread(slow.closed.wait, 30)


async def test_one_that_fails_amid_the_look_is_closed(made: Made) -> None:
    class Failing(Slow):
        def size(self, name: str) -> int | None:
            raise OSError(f"no {name} today")

    failing = Failing(str(made.directory))
    with pytest.raises(OSError, match="today"):
        async with AsyncExitStack() as stack:
            await Origins([str(made.directory.parent)], lambda _: failing).knowing(made.digest, stack)
    assert failing.closed.is_set()
