"""What is opened on a thread is handed over or closed, whenever whoever waits for it leaves."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mesh.opening import opened


class Door:
    """Opens when told, and says when it has been closed."""

    def __init__(self) -> None:
        self.asked, self.may, self.closed = threading.Event(), threading.Event(), threading.Event()

    def open(self) -> "Door":
        """On a thread."""
        self.asked.set()
        assert self.may.wait(30)
        return self

    def close(self) -> None:
        """Lets go of it."""
        self.closed.set()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """One."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_what_is_opened_is_the_callers_to_close(thread: ThreadPoolExecutor) -> None:
    door = Door()
    door.may.set()
    assert await opened(door.open, thread) is door
    assert not door.closed.is_set()


async def test_what_cannot_be_opened_says_why(thread: ThreadPoolExecutor) -> None:
    with pytest.raises(FileNotFoundError):
        await opened(lambda: open("/no/such/file"), thread)  # noqa: SIM115, PTH123
    assert await opened(lambda: None, thread) is None


async def test_who_leaves_while_it_is_being_opened_leaves_nothing_open(thread: ThreadPoolExecutor) -> None:
    door = Door()
    opening = asyncio.create_task(opened(door.open, thread))
    assert await asyncio.to_thread(door.asked.wait, 30)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert not door.closed.is_set()
    door.may.set()
    assert await asyncio.to_thread(door.closed.wait, 30)


async def test_who_leaves_before_he_has_heard_of_it_leaves_nothing_open(thread: ThreadPoolExecutor) -> None:
    door = Door()
    opening = asyncio.create_task(opened(door.open, thread))
    assert await asyncio.to_thread(door.asked.wait, 30)
    door.may.set()
    thread.submit(lambda: None).result()  # by when the door is open; the event loop has not had its turn
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert door.closed.is_set()
