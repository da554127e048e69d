"""A server at the edge of the process."""

from collections.abc import AsyncIterator

import pytest

from tests.mesh.edge import Edge
from tests.mesh.edge import edge as serving


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """A server that does what the test says."""
    async with serving() as one:
        yield one
