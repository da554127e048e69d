"""Units from elsewhere: exactly those that are missing, from whoever has them, right or not at all."""

import asyncio
import shutil
from pathlib import Path

import pytest

from mesh.checkpoint.verify import verify_checkpoint
from mesh.errors import DataLoss, NoRoom, Unreachable
from mesh.state.connection import State
from services.store.catalog import QUARANTINE
from services.store.presence import JOURNAL
from tests.services.store.made import MB, Made, changed, flip, make
from tests.services.store.node import memory_of, node
from tests.services.store.peer import for_ever, peer

PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, 5 * MB + 1, 2 * MB))
UNITS = range(6)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint that lies somewhere else."""
    return make(tmp_path / "elsewhere", seed=1, part_units=PARTS)


async def test_what_a_peer_has_comes_to_the_disk_and_stays(state: State, tmp_path: Path, made: Made) -> None:
    root = tmp_path / "here"
    async with peer(state, made) as one:
        async with node(state, root) as here:
            await here.sees("p1")
            stored = await here.learner.find(made.digest)
            assert (stored.units_on_disk, stored.disk_bytes, stored.complete) == (frozenset(), 0, False)
            assert sorted(await here.fetch(stored, [4, 1])) == [1, 4]
            assert stored.units_on_disk == {1, 4}
        async with node(state, root) as here:
            await here.sees("p1")
            stored = here.catalog.get(made.digest)
            assert stored.units_on_disk == {1, 4}
            assert sorted(await here.fetch(stored)) == [0, 2, 3, 5]
            assert stored.complete
        assert one.sent == dict.fromkeys(UNITS, 1)
    assert not (root / made.digest / JOURNAL).exists()
    assert verify_checkpoint(root / made.digest) == made.manifest
    assert [(root / made.digest / part.file).read_bytes() for part in made.manifest.parts] == list(made.parts)


async def test_memory_that_waits_gets_the_bytes_too_padding_cleared(state: State, tmp_path: Path, made: Made) -> None:
    async with peer(state, made), node(state, tmp_path / "here") as here:
        await here.sees("p1")
        stored, came = await here.learner.find(made.digest), []
        memory = memory_of(made)
        await here.fetcher.fetch(stored, [*UNITS], memory, came.append, urgent=True)
        assert [bytes(part.content) for part in memory] == list(made.parts)
        assert sorted(came) == [*UNITS]
        assert stored.complete
        again = memory_of(made)
        await here.fetcher.fetch(stored, [2], again, came.append, urgent=True)  # from this very disk
        unit = made.manifest.units[2]
        assert bytes(again[0].content[unit.offset :]) == made.parts[0][unit.offset :]
        assert set(again[0].content[: unit.offset]) == {0xFF}


async def test_peers_give_what_each_has(state: State, tmp_path: Path, made: Made) -> None:
    async with (
        peer(state, made, peer_id="p1", units=(0, 2, 4)) as one,
        peer(state, made, peer_id="p2", units=(1, 3, 5)) as two,
        node(state, tmp_path / "here") as here,
    ):
        await here.sees("p1", "p2")
        stored = await here.learner.find(made.digest)
        await here.fetch(stored)
        assert stored.complete
        assert (set(one.sent), set(two.sent)) == ({0, 2, 4}, {1, 3, 5})
        assert {*one.sent.values(), *two.sent.values()} == {1}
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_when_a_peer_dies_midway_another_brings_the_rest(state: State, tmp_path: Path, made: Made) -> None:
    async with (
        peer(state, made, peer_id="p1") as one,
        peer(state, made, peer_id="p2", units=()) as two,
        node(state, tmp_path / "here") as here,
    ):
        two.units = set(UNITS)  # its facts do not say so yet; it is there for the learning
        await here.sees("p1", "p2")
        stored = await here.learner.find(made.digest)
        begun = asyncio.Event()

        async def die(unit: int) -> None:
            if unit >= 3:
                begun.set()
                await asyncio.Event().wait()

        one.pause = die
        async with peer(state, made, peer_id="p3") as three, asyncio.TaskGroup() as group:
            held = asyncio.Event()

            async def held_back(unit: int) -> None:
                await held.wait()

            three.pause = held_back
            await here.sees("p3")
            fetching = group.create_task(here.fetch(stored))
            await begun.wait()
            await one.die()
            held.set()
            assert sorted(await fetching) == [*UNITS]
        assert set(three.sent) >= {3, 4, 5}
        assert not here.rates.welcome("store p1")
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_a_peer_that_falls_silent_is_left(state: State, tmp_path: Path, made: Made) -> None:
    async with (
        peer(state, made, peer_id="p1") as silent,
        peer(state, made, peer_id="p2") as lively,
        node(state, tmp_path / "here", stall_s=2.0) as here,
    ):
        silent.pause = for_ever
        await here.sees("p1", "p2")
        stored = await here.learner.find(made.digest)
        await here.fetch(stored)
        assert stored.complete
        assert lively.sent == dict.fromkeys(UNITS, 1)
        assert not here.rates.welcome("store p1")


async def test_wrong_bytes_are_fetched_from_another_and_counted(state: State, tmp_path: Path, made: Made) -> None:
    async with (
        peer(state, made, peer_id="p1") as liar,
        peer(state, made, peer_id="p2") as honest,
        node(state, tmp_path / "here") as here,
    ):
        lied = asyncio.Event()

        def lie(unit: int, data: bytes) -> bytes:
            lied.set()
            return bytes([data[0] ^ 1]) + data[1:]

        async def after_the_lie(unit: int) -> None:
            await lied.wait()

        liar.spoil, honest.pause = lie, after_the_lie
        await here.sees("p1", "p2")
        stored = await here.learner.find(made.digest)
        came = await here.fetch(stored)
        assert sorted(came) == [*UNITS]
        assert here.quarantine.corrupt_units >= 1
        assert not here.rates.welcome("store p1")
        assert honest.sent == dict.fromkeys(UNITS, 1)
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _, data: bytes([data[0] ^ 1]) + data[1:],
        lambda _, data: data[:-1],
        lambda _, data: data + b"x",
        lambda _, data: bytes(len(data)),
    ],
)
async def test_what_only_a_liar_has_does_not_come(state: State, tmp_path: Path, made: Made, spoil) -> None:  # type: ignore[no-untyped-def]
    async with peer(state, made) as liar, node(state, tmp_path / "here") as here:
        liar.spoil = lambda unit, data: spoil(unit, data) if unit == 1 else data
        await here.sees("p1")
        stored = await here.learner.find(made.digest)
        with pytest.raises(DataLoss, match="import it again") as lost:
            await here.fetch(stored, [1])
        assert lost.value.reason == "UNITS_MISSING"
        assert stored.units_on_disk == frozenset()
        assert here.quarantine.corrupt_units >= 1
        liar.spoil = lambda unit, data: data
        await here.fetch(stored)  # distrusted, yet nobody else is there
        assert stored.complete


async def test_where_nobody_has_them_it_says_so(state: State, tmp_path: Path, made: Made) -> None:
    async with node(state, tmp_path / "here") as here, peer(state, made, units=(0,)) as one:
        await here.sees("p1")
        stored = await here.learner.find(made.digest)
        with pytest.raises(DataLoss, match="5 units of checkpoint") as lost:
            await here.fetch(stored)
        assert lost.value.reason == "UNITS_MISSING"
        assert stored.units_on_disk == {0}
        await one.die()
        with pytest.raises(Unreachable) as gone:
            await here.fetch(stored)
        assert gone.value.reason == "SOURCES_UNREACHABLE"


async def test_a_new_version_moves_only_what_changed(state: State, tmp_path: Path, made: Made) -> None:
    new = changed(tmp_path / "elsewhere", made, units=(1, 4), seed=2)
    shutil.copytree(made.directory, tmp_path / "here" / made.digest)
    async with peer(state, new) as one, node(state, tmp_path / "here") as here:
        await here.sees("p1")
        stored = await here.learner.find(new.digest)
        await here.fetch(stored)
        assert one.sent == {1: 1, 4: 1}
    assert verify_checkpoint(tmp_path / "here" / new.digest) == new.manifest


async def test_a_damaged_copy_of_this_disk_is_found_out(state: State, tmp_path: Path, made: Made) -> None:
    new = changed(tmp_path / "elsewhere", made, units=(1, 4), seed=2)
    shutil.copytree(made.directory, tmp_path / "here" / made.digest)
    flip(tmp_path / "here" / made.digest / "part-000.bin", 5)
    async with peer(state, new) as one, node(state, tmp_path / "here") as here:
        await here.sees("p1")
        stored = await here.learner.find(new.digest)
        await here.fetch(stored)
        assert one.sent == {0: 1, 1: 1, 4: 1}
        assert here.catalog.get(made.digest).units_on_disk == {*UNITS} - {0}
        assert here.quarantine.corrupt_units >= 1
    assert verify_checkpoint(tmp_path / "here" / new.digest) == new.manifest
    assert (tmp_path / "here" / QUARANTINE / f"{made.digest}.units" / "0.bin").is_file()


async def test_an_origin_is_a_directory_as_a_store_has_it(state: State, tmp_path: Path, made: Made) -> None:
    async with node(state, tmp_path / "here", origins=[str(tmp_path / "no such"), str(tmp_path / "elsewhere")]) as here:
        stored = await here.learner.find(made.digest)
        await here.fetch(stored, [2, 3])
        assert stored.units_on_disk == {2, 3}
        memory = memory_of(made)
        await here.fetcher.fetch(stored, [0, 1, 4, 5], memory, lambda _: None, urgent=True)
        assert stored.complete
        assert bytes(memory[0].content[: 3 * MB + 5]) == made.unit(0)
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_an_origin_takes_over_from_a_dying_peer(state: State, tmp_path: Path, made: Made) -> None:
    async with (
        peer(state, made) as one,
        node(state, tmp_path / "here", origins=[str(tmp_path / "elsewhere")]) as here,
    ):

        async def die(unit: int) -> None:
            await one.die()

        one.pause = die
        await here.sees("p1")
        stored = await here.learner.find(made.digest)
        await here.fetch(stored)
        assert not one.sent
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_an_origin_with_wrong_bytes_is_no_source_of_them(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "part-000.bin", 5)
    async with node(state, tmp_path / "here", origins=[str(tmp_path / "elsewhere")]) as here:
        stored = await here.learner.find(made.digest)
        with pytest.raises(DataLoss):
            await here.fetch(stored)
        assert stored.units_on_disk == {*UNITS} - {0}
        assert here.quarantine.corrupt_units == 1


async def test_two_fetches_of_the_same_units_share_them(state: State, tmp_path: Path, made: Made) -> None:
    async with peer(state, made) as one, node(state, tmp_path / "here") as here:
        await here.sees("p1")
        stored = await here.learner.find(made.digest)
        memory = memory_of(made)
        await asyncio.gather(
            here.fetch(stored, [*UNITS], urgent=True),
            here.fetcher.fetch(stored, [*UNITS], memory, lambda _: None, urgent=True),
        )
        assert one.sent == dict.fromkeys(UNITS, 1)
        assert [bytes(part.content) for part in memory] == list(made.parts)


async def test_what_somebody_waits_for_goes_first(state: State, tmp_path: Path, made: Made) -> None:
    big = make(tmp_path / "elsewhere", seed=7, part_units=((20 * MB,) * 4,))  # two lanes, a unit each
    async with (
        peer(state, made) as one,
        peer(state, big, peer_id="p2") as two,
        node(state, tmp_path / "here") as here,
        asyncio.TaskGroup() as group,
    ):
        asked, came = list[int](), list[int]()
        busy, gate, both_came = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hold(unit: int) -> None:
            asked.append(unit)
            if len(asked) == 2:
                busy.set()
            await gate.wait()

        def arrived(unit: int) -> None:
            came.append(unit)
            if len(came) == 2:
                both_came.set()

        async def let_the_other_go_on(unit: int) -> None:
            gate.set()
            await both_came.wait()

        two.pause, one.pause = hold, let_the_other_go_on
        await here.sees("p1", "p2")
        slow, fast = await here.learner.find(big.digest), await here.learner.find(made.digest)
        prefetch = group.create_task(here.fetcher.fetch(slow, range(4), None, arrived, urgent=False))
        await busy.wait()
        await here.fetch(fast)
        assert sorted(asked) == [0, 1]
        await prefetch
        assert slow.complete


async def test_a_cancelled_fetch_keeps_what_has_come_and_writes_no_more(
    state: State, tmp_path: Path, made: Made
) -> None:
    async with peer(state, made) as one, node(state, tmp_path / "here") as here:
        stuck = asyncio.Event()

        async def stop(unit: int) -> None:
            if unit == 4:
                stuck.set()
                await asyncio.Event().wait()

        one.pause = stop
        await here.sees("p1")
        stored, memory = await here.learner.find(made.digest), memory_of(made)
        fetching = asyncio.ensure_future(here.fetcher.fetch(stored, [*UNITS], memory, lambda _: None, urgent=True))
        await stuck.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        before = [bytes(part.content) for part in memory]
        kept = stored.units_on_disk
        one.pause = lambda unit: asyncio.sleep(0)
        one.sent.clear()
        await here.fetch(stored)
        assert [bytes(part.content) for part in memory] == before
        assert one.sent == dict.fromkeys({*UNITS} - kept, 1)
        assert not here.pins.held(made.digest)


async def test_without_room_on_disk_memory_is_filled_all_the_same(state: State, tmp_path: Path, made: Made) -> None:
    async with peer(state, made), node(state, tmp_path / "here", disk_bytes=MB) as here:
        await here.sees("p1")
        stored, memory = await here.learner.find(made.digest), memory_of(made)
        with pytest.raises(NoRoom) as full:
            await here.fetch(stored)
        assert full.value.reason == "DISK_FULL"
        await here.fetcher.fetch(stored, [*UNITS], memory, lambda _: None, urgent=True)
        assert [bytes(part.content) for part in memory] == list(made.parts)
        assert stored.units_on_disk == frozenset()
        assert (tmp_path / "here" / made.digest / "part-000.bin").stat().st_blocks == 0
