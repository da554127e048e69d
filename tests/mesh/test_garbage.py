"""The collector of cycles, with its settings put back at the end."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from mesh.garbage import spare_requests


class Ring:
    """A cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def spared() -> Iterator[None]:
    """Called once."""
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    spare_requests()
    yield
    gc.set_threshold(*usual)
    if not frozen:
        gc.unfreeze()


@pytest.mark.usefixtures("spared")
def test_what_was_there_is_looked_at_no_more_and_what_came_since_is() -> None:
    assert gc.get_freeze_count() > len(gc.get_objects()) > 0
    ring = weakref.ref(Ring())
    assert ring() is not None
    gc.collect()
    assert ring() is None
