"""A directory of this machine as an origin: what it lists, what it reads, and that it notices a change."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mesh.checkpoint.errors import NotACheckpoint, OriginUnreachable, PathEscapes
from mesh.checkpoint.origin import place_of, read_range
from mesh.checkpoint.origins.local import LocalOrigin


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two files and one in a subdirectory."""
    made = tmp_path / "source"
    (made / "files").mkdir(parents=True)
    (made / "b").write_bytes(bytes(range(256)))
    (made / "a").write_bytes(b"")
    (made / "files" / "c").write_bytes(b"nested")
    return made


@pytest.fixture
def origin(directory: Path) -> Iterator[LocalOrigin]:
    """That directory."""
    with closing(LocalOrigin(directory)) as origin:
        yield origin


def test_it_lists_its_own_files_and_reads_nested_ones(origin: LocalOrigin) -> None:
    assert origin.names() == ("a", "b")
    assert [origin.size(name) for name in ("a", "b", "files/c", "files", "nowhere")] == [0, 256, 6, None, None]
    assert read_range(origin, "files/c", 1, 4) == b"este"
    assert read_range(origin, "b", 250, 6) == bytes(range(250, 256))
    assert read_range(origin, "a", 0, 0) == b""


def test_its_url_is_the_directory(origin: LocalOrigin, directory: Path) -> None:
    assert (origin.url, place_of(origin, "a")) == (str(directory), f"{directory}/a")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "files/../../secret", "", "a\0"])
def test_a_name_that_leads_out_is_refused(origin: LocalOrigin, name: str) -> None:
    with pytest.raises(PathEscapes):
        origin.size(name)


def test_a_nested_link_that_leads_out_is_refused(origin: LocalOrigin, directory: Path) -> None:
    (directory.parent / "secret").write_text("x")
    (directory / "files" / "out").symlink_to(directory.parent / "secret")
    with pytest.raises(PathEscapes):
        read_range(origin, "files/out", 0, 1)


def test_a_range_beyond_the_end_is_an_error(origin: LocalOrigin) -> None:
    with pytest.raises(NotACheckpoint, match="ends before byte 257"):
        read_range(origin, "b", 255, 2)


@pytest.mark.parametrize("name", ["b", "files/c"])
def test_a_file_that_is_written_to_is_not_read_on(origin: LocalOrigin, directory: Path, name: str) -> None:
    first = (directory / name).read_bytes()[:1]
    assert read_range(origin, name, 0, 1) == first
    with (directory / name).open("ab") as file:
        file.write(b"more")
    with pytest.raises(OriginUnreachable, match="changed"):
        read_range(origin, name, 0, 1)


def test_a_file_that_is_replaced_stays_what_it_was(origin: LocalOrigin, directory: Path) -> None:
    assert read_range(origin, "b", 1, 1) == b"\1"
    (directory / "new").write_bytes(bytes(256))
    (directory / "new").rename(directory / "b")
    assert read_range(origin, "b", 1, 1) == b"\1"


def test_its_identity_changes_with_a_file_and_with_nothing_else(directory: Path) -> None:
    def identity() -> str:
        with closing(LocalOrigin(directory)) as origin:
            return origin.identity

    first = identity()
    (directory / "out").symlink_to("/etc/passwd")
    assert identity() == first
    os.utime(directory / "b", ns=(0, 0))
    assert identity() != first


def test_closing_lets_go_of_every_descriptor(directory: Path) -> None:
    def held() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = held()
    with closing(LocalOrigin(directory)) as origin:
        read_range(origin, "b", 0, 1)
        read_range(origin, "files/c", 0, 1)  # nested, so not held
        assert held() == before + 1
    assert held() == before
