import mmap
from pathlib import Path

from services.worker.engine.reservation import Reservation

PAGE = mmap.PAGESIZE


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_address_space_costs_no_memory_until_it_is_written() -> None:
    before = resident_bytes()
    reservation = Reservation(4 << 30)
    reservation.buffer[: 1 << 20] = 1
    assert resident_bytes() - before < 64 << 20


def test_memory_is_given_back_by_whole_pages() -> None:
    reservation = Reservation(64 << 20)
    reservation.buffer[:] = 1
    full = resident_bytes()
    reservation.give_back(PAGE + 1, 4 * PAGE + 1)
    assert reservation.buffer[::PAGE][:6].tolist() == [1, 1, 0, 0, 1, 1]
    reservation.give_back(0, 64 << 20)
    assert full - resident_bytes() > 32 << 20
    reservation.give_back(5, 10)  # no whole page
    reservation.buffer[7] = 3
    assert reservation.buffer[:9].tolist() == [0] * 7 + [3, 0]
