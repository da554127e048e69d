"""ReadUnits and ReadFile: the same bytes from every tier, and never a whole unit of wrong ones."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mesh.clients.store import UnitChunk
from mesh.errors import DataLoss, InvalidRequest, NotFound
from mesh.state.connection import State
from tests.services.store.made import CONFIG, MB, Made, flip, make
from tests.services.store.serving import Serving, serving
from tests.services.store.test_opening import fetch

PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, MB))


async def read(store: Serving, made: Made, units: Sequence[int]) -> list[tuple[int, bytes]]:
    """Whole units, in the order in which they came."""
    got: list[tuple[int, bytearray]] = []
    async for chunk in store.client.read_units(store.address, made.digest, units):
        if chunk.offset == 0:
            got.append((chunk.unit, bytearray()))
        assert got[-1][0] == chunk.unit
        assert len(got[-1][1]) == chunk.offset
        assert len(chunk.data) <= 2 * MB
        got[-1][1].extend(chunk.data)
    return [(unit, bytes(data)) for unit, data in got]


async def collect(chunks: AsyncIterator[UnitChunk], into: list[UnitChunk]) -> None:
    """Keeps what comes, also when it ends badly."""
    async for chunk in chunks:
        into.append(chunk)


async def test_units_come_whole_in_the_order_asked_for_from_disk_and_from_memory(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    asked = (4, 0, 2, 1, 3, 0)
    expected = [(unit, made.unit(unit)) for unit in asked]
    async with serving(state, tmp_path) as store:
        assert await read(store, made, asked) == expected
        async with store.client.open(store.address, made.digest) as opening:
            await opening.complete()
            for part in made.manifest.parts:
                (made.directory / part.file).unlink()  # so they cannot come from there
            assert await read(store, made, asked) == expected


async def test_a_corrupt_unit_never_arrives_whole(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    flip(made.directory / "part-000.bin", 5)
    got: list[UnitChunk] = []
    async with serving(state, tmp_path) as store:
        with pytest.raises(DataLoss) as lost:
            await collect(store.client.read_units(store.address, made.digest, [1, 0]), got)
        assert lost.value.reason == "CORRUPT_UNIT"
        assert sum(len(chunk.data) for chunk in got if chunk.unit == 1) == made.manifest.units[1].bytes
        assert sum(len(chunk.data) for chunk in got if chunk.unit == 0) < made.manifest.units[0].bytes
        assert await read(store, made, [1, 2]) == [(unit, made.unit(unit)) for unit in (1, 2)]
        with pytest.raises(DataLoss) as lost:
            await read(store, made, [0])
        assert lost.value.reason == "UNITS_MISSING"
    assert (tmp_path / ".quarantine" / f"{made.digest}.units" / "0.bin").is_file()


@pytest.mark.parametrize("verify", ["always", "fetch", "import"])
async def test_what_is_checked_of_a_bit_that_flips_on_the_disk_is_as_the_setting_says(
    state: State, tmp_path: Path, verify: str
) -> None:
    """always: whatever leaves the disk. fetch: what is sent, and loads here are trusted. import: nothing."""
    made = make(tmp_path, seed=1, part_units=PARTS)
    flip(made.directory / "part-000.bin", 5)
    flipped = bytes([made.unit(0)[5] ^ 4])
    async with serving(state, tmp_path, verify=verify) as store:
        if verify == "import":
            assert (await read(store, made, [0]))[0][1][5:6] == flipped
        async with store.client.open(store.address, made.digest) as opening:
            if verify == "always":
                with pytest.raises(DataLoss):
                    await opening.complete()
            else:
                assert bytes((await fetch(await opening.complete()))[0][5:6]) == flipped
    if verify == "fetch":
        async with serving(state, tmp_path, verify=verify) as store:
            with pytest.raises(DataLoss) as lost:
                await read(store, made, [0])
            assert lost.value.reason == "CORRUPT_UNIT"
            assert await read(store, made, [1]) == [(1, made.unit(1))]


async def test_a_unit_that_is_not_there_is_refused(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        for units in ([], [3], [0, 2**32 - 1]):
            with pytest.raises(InvalidRequest) as refused:
                await read(store, made, units)
            assert refused.value.violations[0].field == "units"


async def test_a_small_file_comes_whole(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        assert await store.client.read_file(store.address, made.digest, "config.json") == CONFIG


@pytest.mark.parametrize(
    "path", ["../manifest.json", "/etc/passwd", "..", "", "./config.json", "files/../../manifest.json", "a\\b", "a\0b"]
)
async def test_a_path_that_leads_elsewhere_is_refused(state: State, tmp_path: Path, path: str) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        with pytest.raises(InvalidRequest) as refused:
            await store.client.read_file(store.address, made.digest, path)
    assert refused.value.violations[0].field == "path"


async def test_a_file_that_the_manifest_does_not_name_is_not_found(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    (made.directory / "files" / "secret").write_text("x")
    async with serving(state, tmp_path) as store:
        for path in ("secret", "manifest.json", "part-000.bin"):
            with pytest.raises(NotFound) as missing:
                await store.client.read_file(store.address, made.digest, path)
            assert missing.value.reason == "UNKNOWN_FILE"


async def test_a_changed_file_is_data_loss(state: State, tmp_path: Path) -> None:
    made = make(tmp_path, seed=1)
    async with serving(state, tmp_path) as store:
        flip(made.directory / "files" / "config.json", 3)
        with pytest.raises(DataLoss) as lost:
            await store.client.read_file(store.address, made.digest, "config.json")
    assert lost.value.reason == "DAMAGED"
