"""What tests of every part share: one Valkey for the whole run, and a cluster of its own for each test."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from mesh.state.connection import State
from tests.cluster import valkey


@pytest.fixture(scope="session", autouse=True)
def _valkey(request: pytest.FixtureRequest) -> Iterator[str]:
    """Started before the first test, so before any gRPC, if any test of the run wants it."""
    if any("redis_url" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with valkey() as url:
            yield url
    else:
        yield ""


@pytest.fixture
def redis_url(_valkey: str) -> str:
    """A real Valkey's address."""
    return _valkey


@pytest.fixture
def cluster() -> str:
    """A cluster's name that no other test has."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
async def state(redis_url: str, cluster: str) -> AsyncIterator[State]:
    """The state of this test's cluster."""
    async with State(redis_url, cluster) as state:
        yield state
