"""Checkpoints that a node learns of: only what was asked for, with every small file right, or nothing at all."""

import asyncio
import resource
from pathlib import Path

import pytest

from mesh.checkpoint import layout
from mesh.errors import InvalidRequest, NoRoom, NotFound, Unreachable
from mesh.state.connection import State
from tests.services.store.made import CONFIG, Made, flip, make
from tests.services.store.node import node
from tests.services.store.peer import peer
from tests.services.store.serving import names_in


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint that lies somewhere else."""
    return make(tmp_path / "elsewhere", seed=1)


async def test_a_peer_tells_of_it_and_it_is_known_after_a_restart(state: State, tmp_path: Path, made: Made) -> None:
    async with peer(state, made), node(state, tmp_path / "here") as here:
        await here.sees("p1")
        first, second = await asyncio.gather(here.learner.find(made.digest), here.learner.find(made.digest))
        assert first is second
        assert (first.manifest, first.manifest_json) == (made.manifest, layout.dump(made.manifest))
        assert (first.directory / "files" / "config.json").read_bytes() == CONFIG
        assert (first.disk_bytes, first.summary.bytes) == (0, made.size_bytes)
        assert [path.stat().st_blocks for path in first.part_paths] == [0]
    async with node(state, tmp_path / "here") as here:
        assert here.catalog.get(made.digest).units_on_disk == frozenset()


async def test_an_origin_tells_of_it(state: State, tmp_path: Path, made: Made) -> None:
    async with node(state, tmp_path / "here", origins=[str(made.directory.parent)]) as here:
        stored = await here.learner.find(made.digest)
        assert stored.manifest == made.manifest
        assert (stored.directory / "files" / "config.json").read_bytes() == CONFIG


async def test_what_nobody_knows_is_not_found(state: State, tmp_path: Path, made: Made) -> None:
    async with peer(state, made), node(state, tmp_path / "here", origins=[str(made.directory.parent)]) as here:
        await here.sees("p1")
        with pytest.raises(NotFound) as missing:
            await here.learner.find("0" * 64)
        assert missing.value.reason == "UNKNOWN_CHECKPOINT"
        with pytest.raises(InvalidRequest):
            await here.learner.find("../elsewhere")


async def test_who_lies_is_not_believed_and_another_is_asked(state: State, tmp_path: Path, made: Made) -> None:
    other = make(tmp_path / "elsewhere", seed=2)
    async with (
        peer(state, made, peer_id="p1") as swapped,
        peer(state, made, peer_id="p2") as garbled,
        peer(state, made, peer_id="p3") as tampered,
        node(state, tmp_path / "here", origins=[str(made.directory.parent)]) as here,
    ):
        swapped.manifest_json = layout.dump(other.manifest)
        garbled.manifest_json = layout.dump(made.manifest).replace(b'"uint8"', b'"int8"', 1)
        tampered.config = CONFIG + b" "
        await here.sees("p1", "p2", "p3")
        stored = await here.learner.find(made.digest)
        assert stored.manifest == made.manifest
        assert (stored.directory / "files" / "config.json").read_bytes() == CONFIG


async def test_when_only_liars_have_it_nothing_is_left_behind(state: State, tmp_path: Path, made: Made) -> None:
    flip(made.directory / "files" / "config.json", 3)
    async with (
        peer(state, made) as one,
        node(state, tmp_path / "here", origins=[str(made.directory.parent)]) as here,
    ):
        one.config = CONFIG + b" "
        await here.sees("p1")
        with pytest.raises(Unreachable) as lost:
            await here.learner.find(made.digest)
        assert lost.value.reason == "SOURCES_UNREACHABLE"
        assert here.catalog.all() == ()
        assert names_in(tmp_path / "here") == set()
        one.config = CONFIG
        assert (await here.learner.find(made.digest)).manifest == made.manifest


async def test_a_disk_that_takes_no_more_is_said_to_be_full(state: State, tmp_path: Path, made: Made) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with node(state, tmp_path / "here", origins=[str(made.directory.parent)]) as here:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # the holes for its parts are larger
        try:
            with pytest.raises(NoRoom) as full:
                await here.learner.find(made.digest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert full.value.reason == "STORAGE_FAILED"
        assert names_in(tmp_path / "here") == set()
        assert (await here.learner.find(made.digest)).manifest == made.manifest
