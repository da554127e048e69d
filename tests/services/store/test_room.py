"""Capacity: what leaves the disk is the oldest that can be had again, its tail first, and never the only copy."""

import os
from pathlib import Path

import pytest

from mesh.checkpoint.verify import verify_checkpoint
from mesh.errors import NoRoom, NotFound, Unsuitable
from mesh.state.connection import State
from services.store.presence import JOURNAL, Presence
from tests.services.store.made import MB, Made, make
from tests.services.store.node import node
from tests.services.store.peer import peer

FOUR_MB = ((MB, MB, MB, MB),)
SMALL = 16 << 10  # more than the small files take


def old_and_new(root: Path) -> tuple[Made, Made]:
    """Two checkpoints on this disk; the first was used longer ago."""
    old, new = make(root, seed=1, part_units=FOUR_MB), make(root, seed=2, part_units=FOUR_MB)
    os.utime(old.directory / "manifest.json", (1, 1))
    return old, new


def whole(made: Made) -> bool:
    """As the disk has it."""
    return Presence(made.directory, made.manifest).complete


async def test_the_tail_of_the_oldest_makes_room(state: State, tmp_path: Path) -> None:
    here_, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    old, new = old_and_new(here_)
    make(elsewhere, seed=1, part_units=FOUR_MB), make(elsewhere, seed=2, part_units=FOUR_MB)
    coming = make(elsewhere, seed=3, part_units=((MB, MB),))
    async with node(state, here_, origins=[str(elsewhere)], disk_bytes=8 * MB + SMALL) as here:
        stored = await here.learner.find(coming.digest)
        await here.fetch(stored)
        assert stored.complete
        assert here.catalog.get(old.digest).units_on_disk == {0, 1}
        assert here.catalog.get(new.digest).complete
        assert here.catalog.used_bytes <= 8 * MB + SMALL
    assert old.directory.joinpath("part-000.bin").stat().st_blocks * 512 == 2 * MB
    async with node(state, here_, origins=[str(elsewhere)]) as here:
        stored = here.catalog.get(old.digest)
        assert stored.units_on_disk == {0, 1}
        assert sorted(await here.fetch(stored)) == [2, 3]
    assert verify_checkpoint(old.directory) == old.manifest
    assert not (old.directory / JOURNAL).exists()


async def test_the_only_copy_never_leaves(state: State, tmp_path: Path) -> None:
    old, new = old_and_new(tmp_path / "here")
    coming = make(tmp_path / "elsewhere", seed=3, part_units=((MB, MB),))
    async with (
        peer(state, coming, peer_id="a1"),
        node(state, tmp_path / "here", disk_bytes=8 * MB + SMALL) as here,
    ):
        await here.sees("a1")
        stored = await here.learner.find(coming.digest)
        with pytest.raises(NoRoom) as full:
            await here.fetch(stored)
        assert full.value.reason == "DISK_FULL"
        assert "WHIMBREL_DISK_BYTES" in full.value.message
        for made in (old, new):
            with pytest.raises(Unsuitable) as refused:
                await here.room.evict(made.digest)
            assert refused.value.reason == "ONLY_COPY"
    assert verify_checkpoint(old.directory) == old.manifest
    assert verify_checkpoint(new.directory) == new.manifest


async def test_of_two_stores_that_have_it_only_one_lets_go(state: State, tmp_path: Path) -> None:
    made = make(tmp_path / "here", seed=1, part_units=FOUR_MB)
    async with peer(state, made, peer_id="p1"):
        async with node(state, tmp_path / "here", own_id="a1") as first:
            await first.sees("p1")
            with pytest.raises(Unsuitable):
                await first.room.evict(made.digest)
            assert whole(made)
        async with node(state, tmp_path / "here", own_id="z1") as last:
            await last.sees("p1")
            assert await last.room.evict(made.digest) == 4 * MB
            assert last.catalog.get(made.digest).units_on_disk == frozenset()
            assert last.catalog.used_bytes == made.manifest.files[0].bytes
            await last.fetch(last.catalog.get(made.digest))
    assert verify_checkpoint(made.directory) == made.manifest


async def test_a_peer_with_a_part_of_it_keeps_nothing_for_us(state: State, tmp_path: Path) -> None:
    made = make(tmp_path / "here", seed=1, part_units=FOUR_MB)
    async with peer(state, made, peer_id="a1", units=(0, 1, 2)), node(state, tmp_path / "here") as here:
        await here.sees("a1")
        with pytest.raises(Unsuitable):
            await here.room.evict(made.digest)


async def test_what_is_in_use_stays(state: State, tmp_path: Path) -> None:
    old, new = old_and_new(tmp_path / "here")
    coming = make(tmp_path / "elsewhere", seed=3, part_units=((MB, MB),))
    make(tmp_path / "elsewhere", seed=1, part_units=FOUR_MB)
    make(tmp_path / "elsewhere", seed=2, part_units=FOUR_MB)
    settings = {"origins": [str(tmp_path / "elsewhere")], "disk_bytes": 8 * MB + SMALL}
    async with node(state, tmp_path / "here", **settings) as here:  # type: ignore[arg-type]
        stored = await here.learner.find(coming.digest)
        with here.pins.hold(old.digest):
            with pytest.raises(Unsuitable) as refused:
                await here.room.evict(old.digest)
            assert refused.value.reason == "CHECKPOINT_IN_USE"
            await here.fetch(stored)
        assert here.catalog.get(old.digest).complete
        assert here.catalog.get(new.digest).units_on_disk == {0, 1}


async def test_use_is_remembered_over_a_restart(state: State, tmp_path: Path) -> None:
    old, new = old_and_new(tmp_path / "here")
    async with node(state, tmp_path / "here") as here:
        here.catalog.get(old.digest)
        assert here.catalog.used_s(old.digest) > here.catalog.used_s(new.digest)
    async with node(state, tmp_path / "here") as here:
        assert here.catalog.used_s(old.digest) >= here.catalog.used_s(new.digest)


async def test_room_that_is_promised_is_not_promised_twice(state: State, tmp_path: Path) -> None:
    async with node(state, tmp_path / "here", disk_bytes=10 * MB) as here:
        async with here.room.reserved(lambda: 6 * MB):
            with pytest.raises(NoRoom):
                async with here.room.reserved(lambda: 5 * MB):
                    pass
            async with here.room.reserved(lambda: 4 * MB):
                pass
        async with here.room.reserved(lambda: 10 * MB):
            pass


async def test_evicting_what_is_not_here_is_refused(state: State, tmp_path: Path) -> None:
    async with node(state, tmp_path / "here") as here:
        with pytest.raises(NotFound):
            await here.room.evict("0" * 64)


async def test_what_is_written_already_is_not_reserved_again_but_counts_against_the_capacity(
    state: State, tmp_path: Path
) -> None:
    async with node(state, tmp_path / "here", disk_bytes=10 * MB) as here:
        written = 0
        async with here.room.reserved(lambda: 6 * MB - written, lambda: written):
            written = 6 * MB
            with pytest.raises(NoRoom):
                async with here.room.reserved(lambda: 5 * MB):
                    pass
