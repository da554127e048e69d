"""Saved models, made once a session, and a copy of one for tests that damage it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import transformers

from .samples import Spec, save


@pytest.fixture(scope="session", autouse=True)
def quiet_and_single() -> Iterator[None]:
    """One thread, and no loading reports from transformers."""
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    yield
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity(verbosity)
    transformers.logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Spec], Path]:
    """The directory of a saved model, made at its first use; not to be changed."""
    made: dict[Spec, Path] = {}

    def get(spec: Spec) -> Path:
        if spec not in made:
            made[spec] = save(spec, tmp_path_factory.mktemp(spec.family))
        return made[spec]

    return get


@pytest.fixture
def llama(saved: Callable[[Spec], Path], tmp_path: Path) -> Path:
    """A saved model of this test's own, in several shards."""
    return Path(shutil.copytree(saved(Spec("llama", shard="100KB")), tmp_path / "llama"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where checkpoints are to be kept; does not exist yet."""
    return tmp_path / "checkpoints"
