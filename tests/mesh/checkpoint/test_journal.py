"""The journal of an import: what it says is true, whatever a crash made of its end."""

from pathlib import Path

import pytest

from mesh.checkpoint.journal import Journal, is_begun

KEY = "a key"
HASHES = tuple(f"{index:064x}" for index in range(5))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / "journal", KEY)
    assert not is_begun(tmp_path / "journal")
    journal.append(HASHES[:2])
    journal.append(HASHES[2:])
    return tmp_path / "journal"


def test_it_is_read_as_it_was_written_and_goes_on(path: Path) -> None:
    journal = Journal.open(path, KEY)
    assert journal.hashes == HASHES
    journal.append(["f" * 64])
    assert Journal.open(path, KEY).hashes == (*HASHES, "f" * 64)
    assert is_begun(path)


def test_that_of_another_import_counts_for_nothing(path: Path) -> None:
    assert Journal.open(path, "another key").hashes == ()
    assert Journal.open(path, KEY).hashes == ()
    assert not is_begun(path)


def test_however_its_end_is_torn_off_what_is_left_is_a_beginning(path: Path) -> None:
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        whole_lines = max(data[:end].count(b"\n") - 1, 0)
        assert Journal.open(path, KEY).hashes == HASHES[:whole_lines]
        assert Journal.open(path, KEY).hashes == HASHES[:whole_lines]


@pytest.mark.parametrize("tail", [b"\0" * 70 + b"\n", b"7 " + b"f" * 64 + b"\n", b"5 " + b"F" * 64 + b"\n", b"\n\n"])
def test_lines_after_one_that_is_wrong_do_not_count(path: Path, tail: bytes) -> None:
    with path.open("ab") as file:
        file.write(tail + b"5 " + b"f" * 64 + b"\n")
    journal = Journal.open(path, KEY)
    assert journal.hashes == HASHES
    journal.append(["e" * 64])
    assert Journal.open(path, KEY).hashes[-1] == "e" * 64
