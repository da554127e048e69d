"""Which units are on disk: what a journal says after every way in which its writer can end."""

import zlib
from pathlib import Path

import pytest

from mesh.checkpoint.errors import Damaged, StorageFailed
from mesh.checkpoint.verify import verify_checkpoint
from services.store.presence import JOURNAL, MOST_LINES, Presence, extents
from tests.services.store.made import MB, Made, make

PARTS = ((MB + 5, 100, 4096), (4096, MB))
ALL = frozenset(range(5))


def presence(made: Made) -> Presence:
    """As a store finds it when it starts."""
    return Presence(made.directory, made.manifest)


def line(unit: int) -> bytes:
    """What a journal says of a unit that has come."""
    said = f"+{unit}".encode()
    return said + b" %08x\n" % zlib.crc32(said)


def test_without_a_journal_everything_is_there(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    assert there.complete
    assert (there.units, there.bytes) == (ALL, made.size_bytes)


def test_units_that_left_are_holes_and_their_space_is_free(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    blocks = (made.directory / "part-000.bin").stat().st_blocks
    freed = presence(made).drop((0, 3))
    assert freed == extents(made.manifest)[0] + extents(made.manifest)[3]
    found = presence(made)
    assert (found.units, found.bytes) == (ALL - {0, 3}, made.size_bytes - freed)
    part = made.directory / "part-000.bin"
    assert part.stat().st_size == len(made.parts[0])
    assert part.read_bytes()[: MB + 5] == bytes(MB + 5)
    assert part.read_bytes()[MB + 4096 :] == made.parts[0][MB + 4096 :]
    assert (blocks - part.stat().st_blocks) * 512 == extents(made.manifest)[0]


def test_the_last_unit_to_come_ends_the_journal(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    there.drop(ALL)
    assert presence(made).units == frozenset()
    for index, content in enumerate(made.parts):
        (made.directory / f"part-00{index}.bin").write_bytes(content)
    there.gain((1, 2))
    assert presence(made).units == {1, 2}
    there.gain((0, 3, 4))
    assert not (made.directory / JOURNAL).exists()
    assert presence(made).complete
    assert verify_checkpoint(made.directory) == made.manifest


@pytest.mark.parametrize("torn_bytes", range(1, 12))
def test_a_line_without_its_end_never_was(tmp_path: Path, torn_bytes: int) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    there.drop((3,))
    there.drop((2,))
    written = (made.directory / JOURNAL).read_bytes()
    assert written.endswith(b"\n-2 " + written[-9:])
    (made.directory / JOURNAL).write_bytes(written[:-torn_bytes])
    again = presence(made)
    assert again.units == ALL - {3}
    again.drop((4,))
    assert presence(made).units == ALL - {3, 4}


def test_a_line_in_the_middle_that_was_not_written_so_is_damage(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    for unit in (3, 4):
        there.drop((unit,))
    journal = bytearray((made.directory / JOURNAL).read_bytes())
    journal[1] ^= 1
    (made.directory / JOURNAL).write_bytes(journal)
    with pytest.raises(Damaged, match="line 1"):
        presence(made)


def test_a_writer_that_died_before_it_could_end_the_journal_leaves_it_to_the_next(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    there.drop((3,))
    journal = (made.directory / JOURNAL).read_bytes()
    (made.directory / "part-001.bin").write_bytes(made.parts[1])
    there.gain((3,))
    (made.directory / JOURNAL).write_bytes(journal + line(3))
    assert presence(made).complete
    assert not (made.directory / JOURNAL).exists()


def test_a_long_journal_is_written_anew(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    there.drop((3,))
    with (made.directory / JOURNAL).open("ab") as journal:
        journal.writelines([line(1)] * MOST_LINES)
    assert presence(made).units == ALL - {3}
    assert (made.directory / JOURNAL).read_bytes().count(b"\n") == 1
    assert presence(made).units == ALL - {3}


def test_a_forgotten_unit_is_not_there_until_it_is_recalled(tmp_path: Path) -> None:
    there = presence(make(tmp_path, seed=1, part_units=PARTS))
    there.forget((2,))
    assert there.units == ALL - {2}
    there.recall((2,))
    assert there.complete


def test_what_was_deleted_or_replaced_takes_nothing_any_more(tmp_path: Path) -> None:
    made = make(tmp_path, seed=1, part_units=PARTS)
    there = presence(made)
    there.drop((3,))
    there.retire()
    with pytest.raises(StorageFailed, match="replaced"):
        there.gain((3,))
    assert there.drop((1,)) == 0
    assert presence(made).units == ALL - {3}
