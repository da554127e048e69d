"""Settings of the store."""

import os
from pathlib import Path

import pytest

from services.store import settings as module
from services.store.settings import StoreSettings, Verify, memory_bytes


def test_the_defaults_suit_a_laptop() -> None:
    settings = StoreSettings.load()
    assert settings.store_dir == Path.home() / ".local/share/whimbrel/store"
    assert settings.dram_bytes == memory_bytes() // 4
    assert settings.verify is Verify.ALWAYS
    assert settings.source_roots == ()


def test_source_roots_are_a_list_with_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_SOURCE_ROOTS", "/models: :/mnt/more, models :")
    assert StoreSettings.load().source_roots == (Path("/models"), Path("/mnt/more, models"))


def test_addresses_are_lists_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHIMBREL_ORIGINS", "s3://models/b, /mnt/c,,")
    monkeypatch.setenv("WHIMBREL_SOURCE_URLS", " https://host/a ,hf://")
    settings = StoreSettings.load()
    assert settings.origins == ("s3://models/b", "/mnt/c")
    assert settings.source_urls == ("https://host/a", "hf://")


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 1 << 20), ("max\n", None), (str(1 << 60), None)])
def test_a_containers_limit_counts_when_it_is_less_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int | None
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(module, "CGROUP_LIMIT", tmp_path / "memory.max")
    assert memory_bytes() == (expected or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in StoreSettings.model_fields.items() if not field.description] == []
