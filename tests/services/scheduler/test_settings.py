"""The scheduler's settings, and what they make of the policy's numbers."""

import pytest

from mesh.settings import BadSettings
from services.scheduler.settings import SchedulerSettings


def test_weights_are_read_from_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_TENANT_WEIGHTS", '{"waders": 3, "gulls": 0.5}')
    assert SchedulerSettings.load().knobs().tenant_weights == {"waders": 3.0, "gulls": 0.5}


@pytest.mark.parametrize("weights", ['{"waders": 0}', '{"waders": -1}', '{"waders": "many"}', "[1]", "waders"])
def test_weights_that_are_none_stop_the_start(monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    monkeypatch.setenv("WHIMBREL_TENANT_WEIGHTS", weights)
    with pytest.raises(BadSettings, match=r"(?i)tenant_weights"):
        SchedulerSettings.load()
