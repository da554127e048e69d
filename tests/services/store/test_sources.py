"""Which addresses a store reads: nothing of its own network but what is listed, and no more than the listed prefix."""

import pytest

from mesh.errors import InvalidRequest
from services.store.settings import StoreSettings
from services.store.sources import Sources


async def read(source: str, urls: str | None = None) -> str:
    """What a store with these settings would read; raises what it would answer."""
    settings = StoreSettings.load(**({} if urls is None else {"source_urls": urls}))
    return await Sources(settings.source_roots, settings.source_urls).checked(source)


@pytest.mark.parametrize(
    "source",
    ["s3://bucket/x", "gs://bucket/x", "az://container/x", "https://host.example/x", "hf://org/name@main"],
)
async def test_remote_sources_are_read_unless_settings_say_otherwise(source: str) -> None:
    assert await read(source) == source
    with pytest.raises(InvalidRequest, match="none") as refused:
        await read(source, "")
    assert refused.value.reason == "SOURCE_NOT_ALLOWED"


@pytest.mark.parametrize(
    "source",
    [
        "http://host.example/x",
        "http://127.0.0.1:8000/x",
        "https://localhost/x",
        "https://127.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/x",
        "https://[::1]/x",
    ],
)
async def test_plain_http_and_private_hosts_must_be_listed(source: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await read(source)
    assert refused.value.reason == "SOURCE_NOT_ALLOWED"
    assert await read(source, source.rpartition("/")[0]) == source


async def test_a_scheme_alone_never_lets_into_private_networks() -> None:
    with pytest.raises(InvalidRequest, match="no public host"):
        await read("http://127.0.0.1:8000/x", "http://, https://")


@pytest.mark.parametrize(
    ("urls", "source", "allowed"),
    [
        ("s3://models", "s3://models/a", True),
        ("s3://models", "s3://models", True),
        ("s3://models/", "s3://models/a", True),
        ("s3://models", "s3://models-of-others/a", False),
        ("s3://models", "gs://models/a", False),
        ("s3://models/public", "s3://models/public/a", True),
        ("s3://models/public", "s3://models/private/a", False),
        ("hf://org", "hf://org/name@main", True),
        ("hf://org/name", "hf://org/name@main", True),
        ("hf://org/name", "hf://org/names", False),
        ("HTTPS://Host.example:443/a", "https://host.example/a/b", True),
        ("https://host.example/a", "https://host.example.evil/a/b", False),
    ],
)
async def test_a_prefix_ends_at_a_step(urls: str, source: str, allowed: bool) -> None:
    if allowed:
        assert await read(source, urls) == source
    else:
        with pytest.raises(InvalidRequest, match="must start with"):
            await read(source, urls)


@pytest.mark.parametrize("source", ["ftp://host/x", "s3://key:secret@bucket/x", "https://host/../x", "relative"])
async def test_what_is_no_address_is_named_a_field_at_fault(source: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await read(source)
    assert refused.value.reason == "BAD_ADDRESS"
    assert refused.value.violations[0].field == "source"
    assert "secret" not in str(refused.value)
