"""Addresses: what can be one, how it is written down, and that nothing secret or crooked gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.checkpoint.errors import BadAddress
from mesh.checkpoint.origins.address import Address, Scheme, is_public, parse


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("/models/tiny", Address(Scheme.FILE, "", "/models/tiny"), "/models/tiny"),
        ("/models/odd\nname", Address(Scheme.FILE, "", "/models/odd\nname"), "/models/odd\nname"),
        ("file:///models/a%20b", Address(Scheme.FILE, "", "/models/a b"), "/models/a b"),
        ("file://localhost/models", Address(Scheme.FILE, "", "/models"), "/models"),
        ("s3://bucket/a/b/", Address(Scheme.S3, "bucket", "a/b"), "s3://bucket/a/b"),
        ("s3://bucket", Address(Scheme.S3, "bucket", ""), "s3://bucket"),
        ("s3://bucket/50%", Address(Scheme.S3, "bucket", "50%"), "s3://bucket/50%"),
        ("gs://bucket.of/x", Address(Scheme.GS, "bucket.of", "x"), "gs://bucket.of/x"),
        ("az://container/x", Address(Scheme.AZ, "container", "x"), "az://container/x"),
        ("HTTPS://Host.Example:443/x/", Address(Scheme.HTTPS, "host.example", "x"), "https://host.example/x"),
        ("http://[::1]:8000/x", Address(Scheme.HTTP, "[::1]:8000", "x"), "http://[::1]:8000/x"),
        ("hf://org/name", Address(Scheme.HF, "org/name", ""), "hf://org/name"),
        ("hf://gpt2/", Address(Scheme.HF, "gpt2", ""), "hf://gpt2"),
        ("hf://org/name@refs/pr/1", Address(Scheme.HF, "org/name", "", "refs/pr/1"), "hf://org/name@refs/pr/1"),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address, written: str) -> None:
    assert parse(text) == address
    assert str(address) == written
    assert parse(written) == address


@pytest.mark.parametrize("text", ["", "models/tiny", "ftp://host/x", "s3:/bucket", "git+ssh://x", "C:\\models", "://x"])
def test_what_is_no_address_is_told_which_there_are(text: str) -> None:
    with pytest.raises(BadAddress, match=r"absolute path.*file:///.*s3://.*gs://.*az://.*https://.*http://.*hf://"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:pw@host/x",
        "https://token@host/x",
        "s3://key:secret@bucket/x",
        "https://host/x?X-Amz-Signature=abc",
        "az://container/x?sig=abc",
        "https://host/x#part",
        "s3://bucket/x#y",
    ],
)
def test_credentials_do_not_belong_in_an_address(text: str) -> None:
    with pytest.raises(BadAddress, match="set credentials in the environment") as refused:
        parse(text)
    assert not any(secret in str(refused.value) for secret in ("pw", "token", "secret", "abc"))


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///x",
        "s3://b",
        "s3://bucket/a/../b",
        "s3://bucket//a",
        "s3://bucket/./a",
        "s3://bucket:99/a",
        "s3://buc ket/a",
        "s3://bucket/a\nb",
        "s3://bucket/a\\b",
        "az://acc/../x",
        "https://",
        "https:///x",
        "https://host/%2e%2e/x",
        "https://host/a%2fb",
        "https://host/a%5cb",
        "https://host/%252e%252e/x",
        "https://host:port/x",
        "https://host:99999/x",
        "https://ho st/x",
        "https://hóst/x",
        "https://１２７.0.0.1/x",
        "https://2130706433/x",
        "https://127.1/x",
        "https://0x7f.0.0.1/x",
        "https://0177.0.0.1/x",
        "https://127.0.0.1.:80/x",
        "https://[::1/x",
        "https://[fe80::1%25eth0]/x",
        "file://host/x",
        "file://x",
        "file:///x%00",
        "/x\0",
        "s3://bucket/" + "x" * 2048,
    ],
)
def test_a_crooked_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse(text)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("huggingface.co", True),
        ("8.8.8.8", True),
        ("[2606:4700::1111]", True),
        ("localhost", False),
        ("localhost.:8000", False),
        ("models.localhost", False),
        ("127.0.0.1:8000", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("[::1]:8000", False),
        ("[fe80::1]", False),
        ("[::ffff:127.0.0.1]", False),
    ],
)
def test_hosts_of_private_networks_are_known(host: str, public: bool) -> None:
    assert is_public(parse(f"https://{host}/x")) is public


@given(st.text() | st.builds("{}://{}".format, st.sampled_from(Scheme), st.text()))
def test_whatever_is_taken_is_written_as_it_was_understood(text: str) -> None:
    try:
        address = parse(text)
    except BadAddress:
        return
    assert parse(str(address)) == address
    assert address.scheme is Scheme.FILE or not {"?", "#", "\\"} & set(str(address))
