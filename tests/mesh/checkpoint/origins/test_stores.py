"""What obstore is made of an address. Nothing here asks a server: for GCS and Azure there is none to ask."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from mesh.checkpoint.errors import OriginRefused
from mesh.checkpoint.origins import open_origin
from mesh.checkpoint.origins.address import parse
from mesh.checkpoint.origins.stores import client_of

KEY = "c2VjcmV0"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import os

    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    return


def test_a_bucket_of_gcs() -> None:
    store = client_of(parse("gs://bucket/a/b"))
    assert isinstance(store, GCSStore)
    assert (store.config["bucket"], store.prefix) == ("bucket", "a/b")


def test_a_container_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    store = client_of(parse("az://container/a/b"))
    assert isinstance(store, AzureStore)
    assert (store.config["container_name"], store.prefix) == ("container", "a/b")


def test_a_bucket_of_s3_and_a_web_server() -> None:
    store = client_of(parse("s3://bucket"))
    assert isinstance(store, S3Store)
    assert (store.config["bucket"], store.prefix) == ("bucket", None)
    web = client_of(parse("https://host/a/b"))
    assert isinstance(web, HTTPStore)
    assert web.url == "https://host/a/b"


def test_only_what_the_operator_chose_goes_without_tls() -> None:
    allowed = {
        address: (client_of(parse(address)).client_options or {}).get("allow_http")  # type: ignore[union-attr]
        for address in ("https://host/x", "http://host/x", "s3://bucket/x")
    }
    assert {address: value in (True, "true") for address, value in allowed.items()} == {
        "https://host/x": False,
        "http://host/x": True,
        "s3://bucket/x": True,
    }


@pytest.mark.parametrize(
    ("address", "settings", "named"),
    [
        ("az://container/x", {}, "AZURE_STORAGE_ACCOUNT_NAME"),
        ("az://container/x", {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "no!"}, "AZURE_STORAGE"),
        ("gs://bucket/x", {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}, "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_settings_that_cannot_be_used_say_which(
    monkeypatch: pytest.MonkeyPatch, address: str, settings: dict[str, str], named: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OriginRefused, match=named):
        open_origin(address)


def test_opening_an_object_store_asks_nobody() -> None:
    with closing(open_origin("gs://bucket-of-nobody/x")) as origin:
        assert origin.url == "gs://bucket-of-nobody/x"
