"""Handing memory over: to who has the token, while it is good."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from mesh.errors import Unreachable, Unsuitable
from mesh.mapping import Mapping
from mesh.segment import SharedMemory, map_parts, map_slots
from mesh.state.connection import State
from services.store import handover as module
from services.store.handover import Handover
from services.store.segments import Segment
from tests.services.store.made import make
from tests.services.store.serving import descriptors, names_in, serving

SEGMENTS = 300  # more than two messages can carry


@pytest.fixture
async def handover() -> AsyncIterator[Handover]:
    """A server."""
    with Handover(None) as handover:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(handover.serve())
            yield handover
            serving.cancel()


@pytest.fixture
def page() -> Iterator[Callable[[], Segment]]:
    """Makes segments of a page, and closes them all."""
    with ExitStack() as stack:

        def make_one() -> Segment:
            segment = Segment(4096)
            stack.callback(segment.close)
            return segment

        yield make_one


async def fetch(socket_path: Path, token: bytes) -> list[Mapping]:
    """Every segment that the token opens, a page each."""
    return await map_slots(SharedMemory(socket_path, token, 4096))


async def test_any_number_of_segments_comes_in_order(handover: Handover, page: Callable[[], Segment]) -> None:
    segments = [page() for _ in range(SEGMENTS)]
    for index, segment in enumerate(segments):
        segment.view[:2] = index.to_bytes(2, "big")
    with handover.offer(segments) as token:
        slots = await fetch(handover.socket_path, token)
    assert [int.from_bytes(slot.view[:2], "big") for slot in slots] == list(range(SEGMENTS))


async def test_a_client_that_takes_its_time_gets_all_of_them_and_holds_nobody_up(
    handover: Handover, page: Callable[[], Segment]
) -> None:
    """More messages than the kernel keeps for it."""
    segments = [page()] * 40_000
    with handover.offer(segments) as token, socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(handover.socket_path))
        slow.sendall(token)
        with handover.offer([page()]) as other:
            assert len(await fetch(handover.socket_path, other)) == 1
        assert await asyncio.to_thread(count_descriptors, slow) == len(segments)


def count_descriptors(client: socket.socket) -> int:
    """Takes all there are, and closes them."""
    count = 0
    while True:
        data, descriptors, _, _ = socket.recv_fds(client, 1, 253)
        for descriptor in descriptors:
            os.close(descriptor)
        count += len(descriptors)
        if not data:
            return count


async def test_an_offer_that_ends_while_the_client_takes_its_time_gives_nothing_more(
    handover: Handover, page: Callable[[], Segment]
) -> None:
    """By then the memory may be somebody else's."""
    segments = [page()] * 40_000
    with socket.socket(socket.AF_UNIX) as slow:
        with handover.offer(segments) as token:
            slow.connect(str(handover.socket_path))
            slow.sendall(token)
            with handover.offer([page()]) as other:  # asked for and had after the first was begun
                assert len(await fetch(handover.socket_path, other)) == 1
        assert 0 < await asyncio.to_thread(count_descriptors, slow) < len(segments)


async def test_a_wrong_or_short_or_old_token_gets_nothing(handover: Handover, page: Callable[[], Segment]) -> None:
    with handover.offer([page()]) as token:
        pass
    for wrong in (token, os.urandom(16), bytes(16)):
        with pytest.raises(Unreachable) as refused:
            await fetch(handover.socket_path, wrong)
        assert refused.value.reason == "SHARED_MEMORY_UNREACHABLE"
        assert "token" in refused.value.message


async def test_a_client_that_says_nothing_is_cut_off(handover: Handover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.05)
    reader, writer = await asyncio.open_unix_connection(handover.socket_path)
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()


async def test_a_client_that_leaves_at_once_hurts_nobody(handover: Handover, page: Callable[[], Segment]) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(handover.socket_path))
    with handover.offer([page()]) as token:
        assert len(await fetch(handover.socket_path, token)) == 1


@pytest.mark.parametrize("turns", range(6))
async def test_who_has_just_connected_is_hung_up_on_when_the_store_stops(turns: int) -> None:
    """However far it has come by then: what is lost is closed by nobody, which a warning tells."""
    with socket.socket(socket.AF_UNIX) as client:
        with Handover(None) as handover:
            serving = asyncio.create_task(handover.serve())
            await asyncio.sleep(0)
            client.connect(str(handover.socket_path))
            for _ in range(turns):
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.wait([serving])
        client.settimeout(20.0)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


async def test_asking_for_more_segments_than_there_are_ends_with_an_error_and_no_descriptors(
    handover: Handover, page: Callable[[], Segment]
) -> None:
    with handover.offer([page()]) as token:
        before = descriptors()
        with pytest.raises(Unreachable):
            await map_parts(SharedMemory(handover.socket_path, token, 4096), [8192], writable=False)
        assert descriptors() == before


async def test_the_socket_is_for_this_user_alone_and_goes_with_the_store(tmp_path: Path) -> None:
    with Handover(tmp_path) as handover:
        assert handover.socket_path.is_relative_to(tmp_path)
        assert stat.S_IMODE(handover.socket_path.parent.stat().st_mode) == 0o700
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("where", ["missing", "deep" * 40])
def test_a_directory_that_cannot_hold_a_socket_is_named_and_left_as_it_was(tmp_path: Path, where: str) -> None:
    if where != "missing":
        (tmp_path / where).mkdir()
    with pytest.raises(Unsuitable, match="WHIMBREL_SOCKET_DIR"), Handover(tmp_path / where):
        pass
    assert names_in(tmp_path / where) == set() if where != "missing" else not (tmp_path / where).exists()


async def test_no_store_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as gone:
        await fetch(tmp_path / "nowhere.sock", bytes(16))
    assert gone.value.reason == "SHARED_MEMORY_UNREACHABLE"


async def test_a_token_of_an_open_call_is_worthless_once_the_call_has_ended(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        async with store.client.open(store.address, made.digest) as opening:
            shared = (await opening.complete()).shared_memory
            assert len(await map_parts(shared, [made.size_bytes], writable=False)) == 1
        async with asyncio.timeout(60):
            while await still_good(shared):
                pass


async def still_good(shared: SharedMemory) -> bool:
    """Whether the token still opens the memory; the store hears of the end of a call a moment after its client."""
    try:
        await map_slots(shared)
    except Unreachable:
        return False
    return True
