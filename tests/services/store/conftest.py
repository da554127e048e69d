"""What the store's tests share."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mesh.clients.channel import Channels
from mesh.clients.store import StoreClient
from mesh.state.connection import State
from tests.services.store.serving import Serving, serving


@pytest.fixture
async def store(state: State, tmp_path: Path) -> AsyncIterator[Serving]:
    """A store on an empty directory, `tmp_path`/store."""
    async with serving(state, tmp_path / "store") as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[StoreClient]:
    """A client of any store."""
    channels = Channels()
    yield StoreClient(channels)
    await channels.close()


@pytest.fixture(autouse=True)
def _no_error_is_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio only logs what a task or a future failed with when nobody asked for it; here that is a failure."""
    yield
    gc.collect(1)
    lost = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    assert not [message for message in lost if "never" in message]
