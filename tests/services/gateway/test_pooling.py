import json
from pathlib import Path

import pytest

from mesh.errors import Unsuitable
from mesh.requests import Pooling
from services.gateway.pooling import PoolingFiles, pooling_files


def written(directory: Path, modes: dict[str, object], *kinds: str) -> PoolingFiles:
    """What is read of such files."""
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (directory / "modules.json").write_text(json.dumps(modules))
    return pooling_files(directory)


@pytest.mark.parametrize(
    ("mode", "pooling"), [("cls_token", Pooling.CLS), ("mean_tokens", Pooling.MEAN), ("lasttoken", Pooling.LAST)]
)
def test_the_mode_that_is_on_is_chosen(tmp_path: Path, mode: str, pooling: Pooling) -> None:
    modes = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    files = written(tmp_path, {**modes, f"pooling_mode_{mode}": True, "word_embedding_dimension": 8}, "Pooling")
    assert files.choose(encoder=True) is pooling


def test_without_files_encoders_take_the_mean_and_others_the_last(tmp_path: Path) -> None:
    files = pooling_files(tmp_path)
    assert (files.choose(encoder=True), files.choose(encoder=False)) == (Pooling.MEAN, Pooling.LAST)


@pytest.mark.parametrize(
    ("modes", "kinds"),
    [
        ({"pooling_mode_max_tokens": True}, ("Transformer", "Pooling")),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, ("Transformer", "Pooling")),
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense")),
    ],
)
def test_what_would_come_out_otherwise_than_its_files_want_is_refused(
    tmp_path: Path, modes: dict[str, object], kinds: tuple[str, ...]
) -> None:
    with pytest.raises(Unsuitable, match="say which pooling"):
        written(tmp_path, modes, *kinds).choose(encoder=True)
