"""An importing process sees the credentials of its own source, and no other secret."""

import pytest

from mesh.checkpoint.origins.address import parse
from mesh.checkpoint.origins.environment import environment_for

EVERYTHING = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_ENDPOINT_URL": "e",
    "GOOGLE_APPLICATION_CREDENTIALS": "g",
    "AZURE_STORAGE_ACCOUNT_KEY": "z",
    "HF_TOKEN": "h",
    "HF_ENDPOINT": "u",
    "HTTPS_PROXY": "p",
    "no_proxy": "n",
    "SSL_CERT_FILE": "c",
    "HOME": "/home/me",
    "WHIMBREL_REDIS_URL": "redis://:secret@host",
    "DATABASE_PASSWORD": "d",
    "LD_PRELOAD": "x",
}
NETWORK = {"HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE"}


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("/models/tiny", {"HF_HUB_OFFLINE"}),
        ("s3://bucket/x", NETWORK | {"AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "HF_HUB_OFFLINE"}),
        ("gs://bucket/x", NETWORK | {"GOOGLE_APPLICATION_CREDENTIALS", "HOME", "HF_HUB_OFFLINE"}),
        ("az://container/x", NETWORK | {"AZURE_STORAGE_ACCOUNT_KEY", "HF_HUB_OFFLINE"}),
        ("https://host/x", NETWORK | {"HF_HUB_OFFLINE"}),
        ("hf://org/name", NETWORK | {"HF_TOKEN", "HF_ENDPOINT"}),
    ],
)
def test_each_kind_of_source_brings_its_own(address: str, seen: set[str]) -> None:
    environment = environment_for(parse(address), EVERYTHING)
    assert set(environment) == seen
    assert all(value == EVERYTHING[name] for name, value in environment.items() if name != "HF_HUB_OFFLINE")


def test_a_hub_that_the_operator_keeps_away_from_stays_away() -> None:
    assert environment_for(parse("hf://org/name"), {"HF_HUB_OFFLINE": "1"}) == {"HF_HUB_OFFLINE": "1"}
