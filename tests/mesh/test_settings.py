"""Settings: read from WHIMBREL_*, checked all at once, frozen."""

import math
import os

import pytest
from pydantic import Field, ValidationError

from mesh.settings import BadSettings, ServiceSettings


class Settings(ServiceSettings):
    """A service with a number and a list of its own."""

    slots: int = Field(4, ge=1)
    names: tuple[str, ...] = Field(("a",))


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WHIMBREL_")]:
        monkeypatch.delenv(name)


def test_without_an_environment_every_default_stands() -> None:
    settings = Settings.load()
    assert (settings.cluster, settings.redis_url, settings.port, settings.slots) == ("default", "", 0, 4)
    assert settings.node


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_SLOTS", "9")
    monkeypatch.setenv("WHIMBREL_LEASE_S", "0.5")
    monkeypatch.setenv("WHIMBREL_NAMES", '["x", "y"]')
    settings = Settings.load()
    assert (settings.slots, settings.lease_s, settings.names) == (9, 0.5, ("x", "y"))


def test_all_wrong_values_are_named_at_once_with_what_was_got(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"PORT": "70000", "LEASE_S": "0", "CLUSTER": "No Spaces", "SLOTS": "many", "LOG_LEVEL": "loud"}
    for name, value in wrong.items():
        monkeypatch.setenv(f"WHIMBREL_{name}", value)
    with pytest.raises(BadSettings) as caught:
        Settings.load()
    lines = str(caught.value).splitlines()
    assert lines[0] == "wrong settings:"
    assert len(lines) == 1 + len(wrong)
    for name, value in wrong.items():
        (line,) = [line for line in lines if f"WHIMBREL_{name}:" in line]
        assert f"(got {value!r})" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("lease_s", 301),
        ("lease_s", math.nan),
        ("drain_s", -0.1),
        ("grace_s", 3601),
        ("max_message_bytes", 1),
        ("metrics_port", -2),
        ("node", ""),
        ("id", "a b"),
        ("id", "x" * 65),
        ("cluster", ""),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadSettings, match=f"WHIMBREL_{name.upper()}: "):
        Settings.load(**{name: value})


def test_a_list_that_is_no_json_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_NAMES", "x,y")
    with pytest.raises(BadSettings, match="names"):
        Settings.load()


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadSettings, match="WHIMBREL_SLOTZ"):
        Settings.load(slotz=3)


def test_settings_never_change() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.slots = 5
