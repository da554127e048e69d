"""A hub's repository, by the real library over HTTP: one commit of it, with large files on another server."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from mesh.checkpoint.convert import import_origin
from mesh.checkpoint.errors import BadAddress, NotACheckpoint, OriginRefused, OriginUnreachable, PathEscapes
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.origin import read_range
from mesh.checkpoint.origins import patience
from mesh.checkpoint.origins.address import parse
from mesh.checkpoint.origins.hub import HubOrigin
from mesh.checkpoint.source import inspect
from tests.hub import COMMIT, TOKEN, Hub
from tests.web import Answer, Asked, Web

NAME = "hf://whimbrel/tiny"
Open = Callable[..., HubOrigin]


@pytest.fixture
def open_hub(the_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens an address there. The library reads its environment when it is imported, so that is undone here."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    opened: list[HubOrigin] = []

    def open_(address: str = NAME) -> HubOrigin:
        opened.append(HubOrigin(parse(address), endpoint=the_hub.url))
        return opened[-1]

    yield open_
    for origin in opened:
        origin.close()
    huggingface_hub.close_session()


def test_an_import_from_a_hub_is_the_import_of_the_directory(
    open_hub: Open, source: Path, digest: str, root: Path
) -> None:
    origin = open_hub()
    assert list(origin.names()) == sorted(path.name for path in source.iterdir())  # over several pages
    manifest = import_origin(origin, root, on_progress=lambda _: None)
    assert (manifest.digest, manifest.source) == (digest, f"{NAME}@{COMMIT}")


async def test_the_importing_process_asks_the_hub_of_its_environment(
    the_hub: Hub, digest: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_hub.private = True
    monkeypatch.setenv("HF_ENDPOINT", the_hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(NotACheckpoint, match="set HF_TOKEN"):
        await import_in_child(NAME, root, lambda _: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (await import_in_child(f"{NAME}@main", root, lambda _: None)).digest == digest
    asked = [request.headers.get("authorization") for request in the_hub.storage.asked]
    assert asked
    assert set(asked) == {None}  # the token stays with the hub


async def test_an_importing_process_that_is_told_to_stay_offline_does(
    the_hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", the_hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OriginRefused, match="HF_HUB_OFFLINE is set; unset it in the store's environment"):
        await import_in_child(NAME, root, lambda _: None)
    assert not the_hub.asked


def test_ranges_alone_are_read_and_nested_files_too(the_hub: Hub, open_hub: Open) -> None:
    the_hub.content["files/deep/x.safetensors"] = data = bytes(range(256)) * 40
    the_hub.storage.files[_blob(the_hub, "files/deep/x.safetensors")] = data
    origin = open_hub()
    assert origin.size("files/deep/x.safetensors") == len(data)
    assert origin.size("files/deep/nowhere") is None
    assert read_range(origin, "files/deep/x.safetensors", 1000, 500) == data[1000:1500]
    assert the_hub.storage.sent_bytes == 500
    with pytest.raises(NotACheckpoint, match="ends before byte"):
        read_range(origin, "files/deep/x.safetensors", len(data) - 1, 2)


def test_a_push_during_an_import_is_not_seen(the_hub: Hub, open_hub: Open) -> None:
    origin = open_hub()
    before = the_hub.content["config.json"]
    the_hub.branches["main"] = "f" * 40
    assert read_range(origin, "config.json", 0, len(before)) == before
    assert all("/main/" not in request.path for request in the_hub.asked)
    assert open_hub().identity == "f" * 40 != origin.identity == COMMIT


def test_another_commit_than_the_one_asked_for_is_a_change(the_hub: Hub, open_hub: Open) -> None:
    origin = open_hub()
    the_hub.branches[COMMIT] = "f" * 40
    with pytest.raises(OriginUnreachable, match="changed while it was imported"):
        read_range(origin, "config.json", 0, 2)


@pytest.mark.parametrize(
    ("address", "said"),
    [("hf://whimbrel/nowhere", "set HF_TOKEN"), (f"{NAME}@no-such-branch", "no such revision")],
)
def test_what_is_not_there_is_no_checkpoint(open_hub: Open, address: str, said: str) -> None:
    with pytest.raises(NotACheckpoint, match=said):
        open_hub(address)


def test_a_gated_repository_says_what_to_do(the_hub: Hub, open_hub: Open) -> None:
    the_hub.gated = True
    with pytest.raises(OriginRefused, match=r"status 403.*accept the model's terms"):
        open_hub()


def test_a_name_that_leads_out_is_refused(open_hub: Open) -> None:
    with pytest.raises(PathEscapes):
        open_hub().size("../other/config.json")


@pytest.mark.parametrize("name", ["hf://", "hf://a/b/c", "hf://a--b/c", "hf://a/../b", "hf://a/b@", "hf://a/b@x..y"])
def test_a_name_that_no_repository_has_is_a_bad_address(name: str) -> None:
    with pytest.raises(BadAddress):
        parse(name)


def test_a_hub_that_fails_for_a_while_is_asked_again(the_hub: Hub, open_hub: Open) -> None:
    failing = iter([Answer(503), Answer(500)])
    the_hub.twist = lambda _, answer: next(failing, answer)
    assert open_hub().identity == COMMIT


def test_storage_that_breaks_off_is_gone_on_with_from_there(the_hub: Hub, open_hub: Open, source: Path) -> None:
    name = inspect(open_hub()).shards[0].file
    data = the_hub.content[name]
    first = len(the_hub.storage.asked)

    def twist(_: Asked, answer: Answer) -> Answer:
        return replace(answer, cut=len(answer.body) // 2) if len(the_hub.storage.asked) < first + 3 else answer

    the_hub.storage.twist = twist
    assert read_range(open_hub(), name, 0, len(data)) == data
    assert len(the_hub.storage.asked) == first + 3


def _with(header: str, text: str) -> Callable[[Answer], Answer]:
    return lambda answer: replace(answer, headers={**answer.headers, header: text})


def _range(text: str) -> Callable[[Answer], Answer]:
    return _with("Content-Range", text)


LIES: dict[str, tuple[Callable[[Answer], Answer], str]] = {
    "it always breaks off": (lambda answer: replace(answer, cut=0), "could not be read"),
    "it ignores Range": (lambda _: Answer(200, {}, bytes(100)), "ignores Range"),
    "it sends another range": (_range("bytes 1-8/{size}"), "not as bytes 0-7"),
    "it sends a range that is none": (_range("nonsense"), "nonsense"),
    "its file has grown": (_range("bytes 0-7/1"), "changed"),
    "it compresses": (
        lambda answer: replace(answer, headers={**answer.headers, "Content-Encoding": "gzip"}),
        "came as",
    ),
    "it answers without end": (lambda answer: replace(answer, body=bytes(1 << 20), endless=True), "more bytes than"),
    "it redirects without end": (lambda _: Answer(302, {"Location": "/blobs/x"}), "TooManyRedirects"),
    "it forbids": (lambda _: Answer(403, {}, bytes(1 << 20), endless=True), "status 403"),
    "it fails always": (lambda _: Answer(500, {}, bytes(1 << 20), endless=True), "status 500"),
    "it lost the file": (lambda _: Answer(416), "changed"),
}


HOPELESS = {"it ignores Range", "it forbids"}


@pytest.mark.parametrize("lie", LIES)
def test_storage_that_lies_is_found_out(the_hub: Hub, open_hub: Open, lie: str) -> None:
    origin = open_hub()
    name = inspect(origin).shards[0].file
    change, said = LIES[lie]

    def twist(_: Asked, answer: Answer) -> Answer:
        changed = change(answer)
        spelled = changed.headers.get("Content-Range", "").format(size=len(the_hub.content[name]))
        return replace(changed, headers={**changed.headers, "Content-Range": spelled}) if spelled else changed

    the_hub.storage.twist = twist
    with pytest.raises(OriginUnreachable, match=said) as refused:
        read_range(origin, name, 0, 8)
    assert isinstance(refused.value, OriginRefused) == (lie in HOPELESS)
    assert "signature" not in str(refused.value)
    assert the_hub.storage.sent_bytes < 64 << 20


@pytest.mark.parametrize(
    "said", [b"{", b"[]", b"{}", b'{"id": "x", "sha": 7}', b'{"id": "x", "sha": "main"}', b"<html></html>"]
)
def test_a_server_that_is_no_hub_is_unreachable(the_hub: Hub, open_hub: Open, said: bytes) -> None:
    the_hub.twist = lambda *_: Answer(200, {"Content-Type": "application/json"}, said)
    with pytest.raises(OriginUnreachable):
        open_hub()


@pytest.mark.parametrize("said", [b"{", b"[1]", b'[{"type": "file"}]', b'[{"type": "file", "path": 1, "size": "x"}]'])
def test_a_listing_that_is_none_is_unreachable(the_hub: Hub, open_hub: Open, said: bytes) -> None:
    origin = open_hub()
    the_hub.twist = lambda *_: Answer(200, {"Content-Type": "application/json"}, said)
    with pytest.raises(OriginUnreachable):
        inspect(origin)


def test_a_hub_that_is_not_there_is_unreachable(open_hub: Open) -> None:
    with Web().running() as gone:
        url = gone.url
    with pytest.raises(OriginUnreachable, match=f"see that {url} is a hub"):
        HubOrigin(parse(NAME), endpoint=url)


def _blob(hub: Hub, name: str) -> str:
    return "/blobs/" + str(hub._entry(name)["lfs"]["oid"])  # type: ignore[index]
