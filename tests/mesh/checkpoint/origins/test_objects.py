"""Buckets: a real S3 server, honest and less so. What an import makes of one is what it makes of the directory."""

from contextlib import closing
from pathlib import Path

import pytest

from mesh.checkpoint.convert import import_origin
from mesh.checkpoint.errors import NotACheckpoint, OriginRefused, OriginUnreachable, PathEscapes
from mesh.checkpoint.importer import import_in_child
from mesh.checkpoint.origin import read_range
from mesh.checkpoint.origins import objects as module
from mesh.checkpoint.origins import open_origin
from mesh.checkpoint.source import inspect
from mesh.checkpoint.verify import verify_checkpoint
from tests.bucket import Bucket, bucket


def test_a_bucket_lists_and_reads_what_a_directory_does(s3: Bucket, source: Path) -> None:
    (address, names) = s3.put(source, "listed"), sorted(path.name for path in source.iterdir())
    s3.client.put_object(Bucket=s3.name, Key="listed/files/nested.bin", Body=bytes(range(100)))
    with closing(open_origin(address)) as origin:
        assert (origin.url, list(origin.names())) == (address, names)
        for name in names:
            data = (source / name).read_bytes()
            assert origin.size(name) == len(data)
            assert read_range(origin, name, 1, len(data) - 1) == data[1:]
        assert origin.size("nowhere") is None
        assert origin.size("files/nowhere") is None
        assert read_range(origin, "files/nested.bin", 10, 5) == bytes(range(10, 15))
        with pytest.raises(NotACheckpoint, match="ends before byte 101"):
            read_range(origin, "files/nested.bin", 0, 101)


@pytest.mark.parametrize("name", ["../other/config.json", "/config.json", "a//b", "..", ""])
def test_a_name_that_leads_out_of_the_prefix_is_refused(s3: Bucket, source: Path, name: str) -> None:
    with closing(open_origin(s3.put(source, "names"))) as origin, pytest.raises(PathEscapes):
        origin.size(name)


def test_an_import_from_a_bucket_is_the_import_of_the_directory(
    s3: Bucket, source: Path, digest: str, root: Path
) -> None:
    address = s3.put(source, "imported/model")
    with closing(open_origin(address)) as origin:
        manifest = import_origin(origin, root, on_progress=lambda _: None)
    assert (manifest.digest, manifest.source) == (digest, address)
    assert verify_checkpoint(root / digest) == manifest


async def test_the_importing_process_gets_the_keys_it_needs(s3: Bucket, source: Path, digest: str, root: Path) -> None:
    manifest = await import_in_child(s3.put(source, "child"), root, lambda _: None)
    assert manifest.digest == digest


def test_an_identity_changes_with_a_file_and_with_nothing_else(s3: Bucket, source: Path) -> None:
    address = s3.put(source, "identity")

    def identity() -> str:
        with closing(open_origin(address)) as origin:
            return origin.identity

    first = identity()
    assert identity() == first
    s3.client.put_object(Bucket=s3.name, Key="identity/config.json", Body=b"{}")
    assert identity() != first


def test_a_file_that_is_replaced_under_an_import_ends_it(s3: Bucket, source: Path) -> None:
    """Same size, other bytes: only the entity tag tells."""
    address = s3.put(source, "replaced")
    with closing(open_origin(address)) as origin:
        found = inspect(origin)
        shard = found.shards[0]
        data = bytearray((source / shard.file).read_bytes())
        data[-1] ^= 1
        s3.client.put_object(Bucket=s3.name, Key=f"replaced/{shard.file}", Body=bytes(data))
        with pytest.raises(OriginUnreachable, match=f"{shard.file} changed while it was imported"):
            read_range(origin, shard.file, 0, 8)


def test_a_file_that_is_deleted_under_an_import_ends_it(s3: Bucket, source: Path) -> None:
    with closing(open_origin(s3.put(source, "deleted"))) as origin:
        shard = inspect(origin).shards[0].file
        s3.client.delete_object(Bucket=s3.name, Key=f"deleted/{shard}")
        with pytest.raises(NotACheckpoint, match="is not there"):
            read_range(origin, shard, 0, 8)


def test_a_missing_bucket_is_no_checkpoint(s3: Bucket) -> None:
    with (
        closing(open_origin("s3://nobodys-bucket/model")) as origin,
        pytest.raises(NotACheckpoint, match="its bucket does not exist"),
    ):
        inspect(origin)


def test_an_empty_prefix_is_no_checkpoint(s3: Bucket) -> None:
    with (
        closing(open_origin("s3://models/nothing/here")) as origin,
        pytest.raises(NotACheckpoint, match=r"has no config\.json"),
    ):
        inspect(origin)


def test_wrong_keys_are_told_what_to_set(s3: Bucket, source: Path) -> None:
    address = s3.put(source, "locked")
    s3.demand_keys()
    try:
        with (
            closing(open_origin(address)) as origin,
            pytest.raises(OriginRefused, match=r"403.*AWS_ACCESS_KEY_ID") as refused,
        ):
            inspect(origin)
    finally:
        s3.demand_nothing()
    assert "secret" not in str(refused.value)


def test_a_bucket_of_too_many_files_is_refused(s3: Bucket, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    with (
        closing(open_origin(s3.put(source, "many"))) as origin,
        pytest.raises(NotACheckpoint, match="more than 3 files"),
    ):
        origin.names()


def test_a_server_that_dies_is_unreachable_and_the_import_works_when_it_is_back(
    source: Path, digest: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket() as mortal:
        for name, value in mortal.environment.items():
            monkeypatch.setenv(name, value)
        with closing(open_origin(mortal.put(source, "model"))) as origin:
            shard = inspect(origin).shards[0].file
            mortal.kill()
            with pytest.raises(OriginUnreachable, match=r"could not be read: .*refused.*try again"):
                read_range(origin, shard, 0, 8)
        mortal.restart()
        with closing(open_origin(mortal.put(source, "model"))) as origin:
            assert import_origin(origin, root, on_progress=lambda _: None).digest == digest
