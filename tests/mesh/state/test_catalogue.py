"""The catalogue: every write names what it replaces."""

import asyncio
from dataclasses import replace

import pytest

from mesh.errors import AlreadyExists, Conflict, MeshError, NotFound, Unreachable
from mesh.facts import CheckpointSummary, ModelEntry
from mesh.state.catalogue import Catalogue
from mesh.state.connection import State
from mesh.state.mirror import Mirror
from tests.mesh.state.conftest import WAIT_S, Breakable

SUMMARY = CheckpointSummary("ab" * 32, 3 << 20, "LlamaForCausalLM", "bfloat16", 512, 6, 39, 64)


def entry(name: str = "curlew", keep_alive_s: float | None = None) -> ModelEntry:
    """A model that was never stored."""
    return ModelEntry(name, SUMMARY, "/models/curlew", keep_alive_s, created_s=1.5, updated_s=2.5)


@pytest.fixture
def catalogue(state: State) -> Catalogue:
    """This test's catalogue."""
    return Catalogue(state)


async def shown(mirror: Mirror, *entries: ModelEntry) -> None:
    """Waits until the facts show exactly these."""
    wanted = {e.name: e for e in entries}
    assert await mirror.until(lambda facts: dict(facts.models) == wanted, WAIT_S), mirror.facts.models


async def test_what_is_added_is_seen_as_it_was_written(catalogue: Catalogue, mirror: Mirror) -> None:
    stored = await catalogue.add(entry("größer/als:0", keep_alive_s=7.25))
    assert stored.revision == 1
    await shown(mirror, stored)


async def test_a_name_cannot_be_added_twice(catalogue: Catalogue, mirror: Mirror) -> None:
    stored = await catalogue.add(entry())
    with pytest.raises(AlreadyExists, match="deployed already") as caught:
        await catalogue.add(entry(keep_alive_s=1.0))
    assert (caught.value.reason, caught.value.metadata) == ("MODEL_EXISTS", {"model": "curlew"})
    await shown(mirror, stored)


async def test_a_replacement_of_the_current_revision_gets_the_next(catalogue: Catalogue, mirror: Mirror) -> None:
    first = await catalogue.add(entry())
    second = await catalogue.replace(replace(first, keep_alive_s=3.0))
    assert second.revision == 2
    await shown(mirror, second)


async def test_a_replacement_of_an_older_revision_is_a_conflict(catalogue: Catalogue, mirror: Mirror) -> None:
    first = await catalogue.add(entry())
    second = await catalogue.replace(replace(first, keep_alive_s=3.0))
    with pytest.raises(Conflict, match="changed in between"):
        await catalogue.replace(replace(first, keep_alive_s=4.0))
    await shown(mirror, second)


async def test_of_many_writers_exactly_one_wins(catalogue: Catalogue, mirror: Mirror) -> None:
    first = await catalogue.add(entry())
    writes = [catalogue.replace(replace(first, keep_alive_s=float(n))) for n in range(10)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    (winner,) = [r for r in results if isinstance(r, ModelEntry)]
    assert sum(isinstance(r, Conflict) for r in results) == 9
    await shown(mirror, winner)


async def test_of_many_who_add_one_name_exactly_one_wins(catalogue: Catalogue, mirror: Mirror) -> None:
    adds = [catalogue.add(entry(keep_alive_s=float(n))) for n in range(10)]
    results = await asyncio.gather(*adds, return_exceptions=True)
    (winner,) = [r for r in results if isinstance(r, ModelEntry)]
    assert sum(isinstance(r, AlreadyExists) for r in results) == 9
    await shown(mirror, winner)


async def test_a_removed_model_is_gone_and_cannot_be_replaced_or_removed(catalogue: Catalogue, mirror: Mirror) -> None:
    first = await catalogue.add(entry())
    await catalogue.remove("curlew")
    await shown(mirror)
    for attempt in (catalogue.replace(first), catalogue.remove("curlew"), catalogue.remove("curlew", 1)):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert caught.value.reason == "UNKNOWN_MODEL"


async def test_removing_an_older_revision_is_a_conflict(catalogue: Catalogue, mirror: Mirror) -> None:
    first = await catalogue.add(entry())
    second = await catalogue.replace(first)
    with pytest.raises(Conflict):
        await catalogue.remove("curlew", first.revision)
    await shown(mirror, second)
    await catalogue.remove("curlew", second.revision)
    await shown(mirror)


async def test_a_model_added_again_goes_on_counting_so_that_an_old_etag_never_fits(
    catalogue: Catalogue, mirror: Mirror
) -> None:
    first = await catalogue.add(entry())
    await catalogue.remove("curlew")
    again = await catalogue.add(entry())
    assert again.revision > first.revision + 1
    with pytest.raises(Conflict):
        await catalogue.replace(first)
    await shown(mirror, again)


async def test_without_redis_a_write_says_so_and_when_to_try_again(breakable: Breakable) -> None:
    async with State(breakable.url, "c") as state:
        await breakable.stop()
        with pytest.raises(Unreachable) as caught:
            await Catalogue(state).add(entry())
        error: MeshError = caught.value
        assert (error.reason, error.retry_after_s) == ("STATE_UNREACHABLE", 1.0)
