"""How fast what moves leaves, on a clock that only sleeping turns."""

from services.worker.moving.pace import CALM_S, LATE_S, LEAST, Pace


class Clock:
    """Whoever sleeps turns it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, length_s: float) -> None:
        self.now += length_s


def paced(most_bytes_s: float) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(most_bytes_s, clock, clock.sleep), clock


async def test_all_moves_together_leave_no_faster_than_the_setting_says() -> None:
    pace, clock = paced(1024.0)
    for _ in range(9):
        await pace.leave(128)
    assert clock.now == 101.0


async def test_an_idle_link_saves_nothing_up() -> None:
    pace, clock = paced(1024.0)
    await pace.leave(128)
    clock.now += 60.0
    began = clock.now
    for _ in range(9):
        await pace.leave(128)
    assert clock.now == began + 1.0


async def test_without_a_bound_nothing_waits() -> None:
    pace, clock = paced(0.0)
    pace.frames(10 * LATE_S)
    await pace.leave(1 << 40)
    assert clock.now == 100.0


def test_late_frames_halve_the_rate_and_punctual_ones_bring_it_back() -> None:
    pace, clock = paced(1024.0)
    for expected in (512.0, 256.0):
        pace.frames(2 * LATE_S)
        clock.now += 2 * CALM_S
        pace.frames(0.0)
        pace.frames(0.0)  # at once again: it has had no time to help
        assert pace.bytes_s == expected
    for _ in range(20):
        clock.now += 2 * CALM_S
        pace.frames(0.0)
    assert pace.bytes_s == 1024.0


def test_a_move_goes_on_however_late_frames_are() -> None:
    pace, clock = paced(1024.0)
    for _ in range(100):
        clock.now += 2 * CALM_S
        pace.frames(2 * LATE_S)
    assert pace.bytes_s == 1024.0 * LEAST
