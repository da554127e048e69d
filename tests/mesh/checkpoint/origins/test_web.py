"""Web servers: names are found by asking, and a server that lies gets a clean error, at little cost."""

import resource
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.exceptions import BaseError

from mesh.checkpoint.convert import import_origin
from mesh.checkpoint.errors import CheckpointError, NotACheckpoint, OriginRefused, OriginUnreachable, PathEscapes
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.origin import read_range
from mesh.checkpoint.origins import open_origin, patience
from mesh.checkpoint.origins.address import Scheme
from mesh.checkpoint.origins.blame import blame
from mesh.checkpoint.source import inspect
from tests.web import Answer, Asked, Twist, Web


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken answer is gone on with at once."""
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)


def test_an_import_from_a_web_server_is_the_import_of_the_directory(
    web: Web, source: Path, digest: str, root: Path
) -> None:
    address = web.put(source, "pub/my model".replace(" ", "-"))
    with closing(open_origin(address)) as origin:
        assert set(origin.names()) == {path.name for path in source.iterdir()}
        manifest = import_origin(origin, root, on_progress=lambda _: None)
    assert (manifest.digest, manifest.source) == (digest, address)


async def test_the_importing_process_reads_a_web_server(web: Web, source: Path, digest: str, root: Path) -> None:
    assert (await import_in_child(web.put(source, "child"), root, lambda _: None)).digest == digest


def test_steps_that_need_encoding_are_asked_for_as_they_are(web: Web) -> None:
    web.files["/a b/ü/config.json"] = b"{}"
    with closing(open_origin(f"{web.url}/a%20b/%C3%BC")) as origin:
        assert read_range(origin, "config.json", 0, 2) == b"{}"


def test_its_identity_is_of_the_shards_too(web: Web, source: Path) -> None:
    def identity() -> str:
        with closing(open_origin(address)) as origin:
            return origin.identity

    address = web.put(source, "m")
    first = identity()
    assert identity() == first
    shard = next(path for path in web.files if path.endswith("-of-00005.safetensors") or "00001-of" in path)
    web.files[shard] += b"more"
    assert identity() != first


def test_a_name_that_leads_out_is_refused(web: Web) -> None:
    with closing(open_origin(f"{web.url}/m")) as origin, pytest.raises(PathEscapes):
        origin.size("../secret")
    assert not web.asked


def test_an_answer_that_breaks_off_is_gone_on_with_from_there(web: Web) -> None:
    data = bytes(range(256)) * 12_000
    web.files["/m/part-000.bin"] = data

    def twist(asked: Asked, answer: Answer) -> Answer:
        return (
            replace(answer, cut=len(answer.body) * 2 // 3) if asked.method == "GET" and len(web.asked) < 4 else answer
        )

    web.twist = twist
    with closing(open_origin(f"{web.url}/m")) as origin:
        assert read_range(origin, "part-000.bin", 5, len(data) - 10) == data[5:-5]
    starts = [int(asked.headers["range"][6:].partition("-")[0]) for asked in web.asked if asked.method == "GET"]
    assert starts[0] == 5 < starts[1] < starts[2]


def test_a_server_that_fails_for_a_while_is_asked_again(web: Web) -> None:
    web.files["/m/x"] = b"data"
    web.twist = lambda _, answer: Answer(503) if len(web.asked) < 3 else answer
    with closing(open_origin(f"{web.url}/m")) as origin:
        assert read_range(origin, "x", 0, 4) == b"data"


BIG = bytes(1 << 20)


def _gets(change: Callable[[Answer], Answer]) -> Twist:
    return lambda asked, answer: change(answer) if asked.method == "GET" else answer


def _headers(**changes: str) -> Callable[[Answer], Answer]:
    new = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda answer: replace(answer, headers={**answer.headers, **new})


LIES: dict[str, tuple[Twist, str]] = {
    "it always breaks off": (_gets(lambda answer: replace(answer, cut=0)), "could not be read"),
    "it ignores Range": (lambda asked, _: Answer(200, {}, bytes(1000)), "ignores Range"),
    "it sends another range": (_gets(_headers(Content_Range="bytes 1-100/1000")), "could not be read"),
    "it sends a range that is none": (_gets(_headers(Content_Range="bytes 7")), "could not be read"),
    "its file has grown": (_gets(_headers(Content_Range="bytes 0-99/2000")), "changed while it was imported"),
    "its file is another": (_gets(_headers(ETag='"new"')), "changed while it was imported"),
    "it answers without end": (
        _gets(lambda answer: replace(answer, body=BIG, endless=True)),
        "could not be read",
    ),
    "it sends more than it says": (_gets(lambda answer: replace(answer, body=BIG, length=100)), ""),
    "it redirects without end": (
        lambda asked, _: Answer(302, {"Location": asked.path}),
        "could not be read",
    ),
    "it redirects to another scheme": (_gets(lambda _: Answer(302, {"Location": "file:///etc/passwd"})), "could not"),
    "it fails always": (_gets(lambda _: Answer(500)), "status 500"),
    "it wants a login": (_gets(lambda _: Answer(401)), "status 401.*without a login"),
    "it forbids": (_gets(lambda _: Answer(403)), "status 403.*without a login"),
    "it has no HEAD": (lambda asked, answer: Answer(405) if asked.method == "HEAD" else answer, "status 405"),
}


HOPELESS = {"it ignores Range", "it wants a login", "it forbids", "it has no HEAD"}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_found_out(web: Web, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.checkpoint.origins.stores.RETRY", {"max_retries": 1})
    web.files["/m/x"] = bytes(range(100)) * 10
    web.twist, said = LIES[lie]
    before = _peak_bytes()
    with closing(open_origin(f"{web.url}/m")) as origin:
        if said:
            with pytest.raises(OriginUnreachable, match=said) as refused:
                read_range(origin, "x", 0, 100)
            assert isinstance(refused.value, OriginRefused) == (lie in HOPELESS)
        else:
            assert read_range(origin, "x", 0, 100) == bytes(100)
    assert _peak_bytes() - before < 64 << 20


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_a_server_without_strong_tags_is_read_by_what_else_it_says(web: Web, headers: dict[str, str]) -> None:
    """If-Match never holds for a weak tag, so none may be sent; what the answer says of the version must do."""
    web.files["/m/x"] = bytes(range(100))

    def twist(asked: Asked, answer: Answer) -> Answer:
        assert "if-match" not in asked.headers
        kept = {name: value for name, value in answer.headers.items() if name != "ETag"}
        return replace(answer, headers=kept | headers)

    web.twist = twist
    with closing(open_origin(f"{web.url}/m")) as origin:
        assert read_range(origin, "x", 10, 20) == bytes(range(10, 30))
        if headers:
            headers = dict.fromkeys(headers, 'W/"2"' if "ETag" in headers else "Wed, 21 Oct 2015 07:28:01 GMT")
            with pytest.raises(OriginUnreachable, match="changed"):
                read_range(origin, "x", 10, 20)


def test_a_certificate_that_is_not_trusted_needs_a_setting_and_no_retry() -> None:
    said = BaseError("error sending request - invalid peer certificate: InvalidCertificate(UnknownIssuer)")
    error = blame(said, "https://host/x", Scheme.HTTPS)
    assert isinstance(error, OriginRefused)
    assert "set SSL_CERT_FILE" in str(error)


def test_a_file_that_vanished_is_no_checkpoint(web: Web) -> None:
    web.files["/m/x"] = bytes(100)
    web.twist = _gets(lambda _: Answer(404))
    with closing(open_origin(f"{web.url}/m")) as origin, pytest.raises(NotACheckpoint, match="is not there"):
        read_range(origin, "x", 0, 100)


@pytest.mark.parametrize(
    "index",
    [b"{", b'{"weight_map": {"a": ["x"]}}', b'{"weight_map": {"a": "../x.safetensors"}}', b"[]"],
)
def test_an_index_that_lies_is_judged_as_one_of_a_directory_is(web: Web, source: Path, index: bytes) -> None:
    address = web.put(source, "m")
    web.files["/m/model.safetensors.index.json"] = index
    with closing(open_origin(address)) as origin:
        origin.names()
        with pytest.raises(CheckpointError) as refused:
            inspect(origin)
    assert not isinstance(refused.value, OriginUnreachable)


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with Web().running() as gone:
        address = f"{gone.url}/m"
    with closing(open_origin(address)) as origin, pytest.raises(OriginUnreachable, match="refused"):
        inspect(origin)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
