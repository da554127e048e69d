"""Reading a file in several ways ends with the same bytes, and a loader's page cache can be dropped for sure."""

import os
import random
from pathlib import Path

import pytest

from benchmarks.cache import cached_pages, drop, read
from benchmarks.loading.reading import Way, fresh, pool, read_file

SIZE = 5 << 20
WAYS = [Way(1, 4 << 20, direct=False), Way(1, 1 << 20), Way(7, 64 << 10)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "part"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    os.sync()
    return path


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.text)
def test_every_way_fills_the_memory_with_the_file_and_tells_each_chunk_once(file: Path, way: Way) -> None:
    arrived: list[range] = []
    memory = fresh(SIZE)
    read_file(file, memoryview(memory), way, arrived.append)
    assert memory[:] == file.read_bytes()
    assert sorted(chunk.start for chunk in arrived) == list(range(0, SIZE, way.chunk_bytes))


def test_a_file_that_is_too_short_is_an_error(file: Path) -> None:
    with pytest.raises(OSError, match="ended"):
        read_file(file, memoryview(pool(SIZE + 4096)), Way(3, 1 << 20))


def test_a_dropped_file_has_no_page_in_the_cache_and_a_read_one_has_all(file: Path) -> None:
    read([file])
    assert cached_pages(file) == SIZE // 4096
    drop([file], others=False)
    assert cached_pages(file) == 0
