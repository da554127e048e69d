"""Native origins far away: what a store laid out, copied to a bucket or a web server, is fetched unit by unit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.checkpoint.verify import verify_checkpoint
from mesh.errors import Unreachable, Unsuitable
from mesh.state.connection import State
from tests.bucket import Bucket, bucket
from tests.services.store.made import MB, Made, make
from tests.services.store.node import node
from tests.web import Web

PARTS = ((3 * MB + 5, 100, 2 * MB), (4096, 5 * MB + 1, 2 * MB))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint that lies somewhere else."""
    return make(tmp_path / "elsewhere", seed=1, part_units=PARTS)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket that stores of this process find."""
    with bucket() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


async def test_units_come_from_a_bucket(state: State, tmp_path: Path, made: Made, s3: Bucket) -> None:
    origin = s3.put(made.directory.parent, "native")
    async with node(state, tmp_path / "here", origins=[origin]) as here:
        stored = await here.learner.find(made.digest)
        assert sorted(await here.fetch(stored, [4, 1])) == [1, 4]
        assert stored.units_on_disk == {1, 4}
        await here.fetch(stored)
        assert stored.complete
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_units_come_from_a_web_server_and_only_their_bytes_do(state: State, tmp_path: Path, made: Made) -> None:
    with Web().running() as web:
        origin = web.put(made.directory.parent, "native")
        async with node(state, tmp_path / "here", origins=[origin]) as here:
            stored = await here.learner.find(made.digest)
            before = web.sent_bytes
            await here.fetch(stored, [1])
            assert web.sent_bytes - before <= 2 * made.manifest.units[1].bytes  # 100 bytes of 14 MB
            await here.fetch(stored)
            assert stored.complete
    assert verify_checkpoint(tmp_path / "here" / made.digest) == made.manifest


async def test_a_bucket_that_refuses_us_is_no_loss_of_data_and_not_worth_a_retry(
    state: State, tmp_path: Path, made: Made, s3: Bucket
) -> None:
    origin = s3.put(made.directory.parent, "native")
    async with node(state, tmp_path / "here", origins=[origin]) as here:
        s3.demand_keys()
        with pytest.raises(Unsuitable, match="AWS_ACCESS_KEY_ID") as unknown:
            await here.learner.find(made.digest)
        s3.demand_nothing()
        stored = await here.learner.find(made.digest)
        s3.demand_keys()
        with pytest.raises(Unsuitable, match="AWS_ACCESS_KEY_ID") as unread:
            await here.fetch(stored, [0])
        assert unknown.value.reason == unread.value.reason == "ORIGIN_REFUSED"
        s3.demand_nothing()
        assert await here.fetch(stored, [0]) == [0]


async def test_a_bucket_that_dies_is_unreachable_until_it_is_back(
    state: State, tmp_path: Path, made: Made, s3: Bucket
) -> None:
    origin = s3.put(made.directory.parent, "native")
    async with node(state, tmp_path / "here", origins=[origin]) as here:
        stored = await here.learner.find(made.digest)
        s3.kill()
        with pytest.raises(Unreachable):
            await here.fetch(stored, [0])
        s3.restart()
        s3.put(made.directory.parent, "native")
        assert await here.fetch(stored, [0]) == [0]
