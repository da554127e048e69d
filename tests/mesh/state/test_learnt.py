"""The notebook: what a leader has learnt outlives it, and only a leader writes."""

import pytest

from mesh.errors import StaleFence
from mesh.state.connection import State
from mesh.state.learnt import AT_ONCE, Notebook, Subject


async def lead(state: State, fence: int) -> None:
    """Somebody leads, under this fence."""
    await state.redis.hset(state.keys.leader, mapping={"holder": "s", "fence": fence})


async def test_what_one_leader_writes_the_next_one_reads(state: State) -> None:
    await lead(state, 7)
    await Notebook(state).write(7, Subject.RATES, {"disk/n1": "1", "disk/n2": "2"})
    await lead(state, 8)
    await Notebook(state).write(8, Subject.RATES, {"disk/n2": "3"})
    assert await Notebook(state).read(Subject.RATES) == {"disk/n1": "1", "disk/n2": "3"}


async def test_subjects_are_kept_apart(state: State) -> None:
    await lead(state, 7)
    await Notebook(state).write(7, Subject.RATES, {"m": "1"})
    await Notebook(state).write(7, Subject.DEMAND, {"m": "2"})
    assert await Notebook(state).read(Subject.DEMAND) == {"m": "2"}


async def test_an_empty_text_is_forgotten(state: State) -> None:
    await lead(state, 7)
    await Notebook(state).write(7, Subject.RATES, {"a": "1", "b": "2"})
    await Notebook(state).write(7, Subject.RATES, {"a": ""})
    assert await Notebook(state).read(Subject.RATES) == {"b": "2"}


@pytest.mark.parametrize("leader", [None, 8])
async def test_who_no_longer_leads_writes_nothing(state: State, leader: int | None) -> None:
    if leader:
        await lead(state, leader)
    with pytest.raises(StaleFence, match="no longer leads"):
        await Notebook(state).write(7, Subject.RATES, {"a": "1"})
    assert await Notebook(state).read(Subject.RATES) == {}


async def test_more_than_one_script_takes_is_written_whole(state: State) -> None:
    await lead(state, 7)
    many = {f"m{n}": str(n) for n in range(2 * AT_ONCE + 1)}
    await Notebook(state).write(7, Subject.DEMAND, many)
    assert await Notebook(state).read(Subject.DEMAND) == many
