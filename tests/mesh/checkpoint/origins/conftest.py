"""Servers that origins are read from, and the checkpoint that a directory becomes, to compare with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.checkpoint.convert import import_directory
from tests.bucket import Bucket, bucket
from tests.hub import Hub, hub
from tests.mesh.checkpoint.samples import Spec
from tests.web import Web

SHARDED = Spec("llama", shard="100KB")


@pytest.fixture(scope="session")
def source(saved: Callable[[Spec], Path]) -> Path:
    """What save_pretrained wrote, in several shards; not to be changed."""
    return saved(SHARDED)


@pytest.fixture(scope="session")
def digest(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the checkpoint that the directory itself becomes."""
    return import_directory(source, tmp_path_factory.mktemp("local"), on_progress=lambda _: None).digest


@pytest.fixture(scope="module")
def _bucket() -> Iterator[Bucket]:
    with bucket() as made:
        yield made


@pytest.fixture
def s3(_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of a running server, and an environment in which it is found."""
    for name, value in _bucket.environment.items():
        monkeypatch.setenv(name, value)
    return _bucket


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server without files."""
    with Web().running() as running:
        yield running


@pytest.fixture
def the_hub(source: Path) -> Iterator[Hub]:
    """A hub with the model."""
    with hub() as made:
        made.hold(source)
        yield made
