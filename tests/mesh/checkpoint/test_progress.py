"""How often an import says how far it is."""

from mesh.checkpoint.progress import REPORT_S, ImportProgress, paced


class Clock:
    """Stands still until it is turned."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


def heard(steps: list[tuple[int, float]], total: int) -> list[int]:
    """What is passed on of the bytes in `steps`, each some seconds after the one before."""
    clock, seen = Clock(), list[ImportProgress]()
    on_bytes = paced(total, seen.append, clock)
    for done, pause_s in steps:
        clock.now_s += pause_s
        on_bytes(done)
    return [progress.bytes_done for progress in seen]


def test_a_fast_import_is_heard_once_per_percent() -> None:
    assert heard([(done, 0.0) for done in range(10_001)], 10_000) == list(range(0, 10_001, 100))


def test_a_slow_one_is_heard_every_second() -> None:
    assert heard([(0, 0), (1, REPORT_S / 4), (2, REPORT_S), (3, REPORT_S), (4, 0)], 10_000) == [0, 2, 3]


def test_one_that_goes_on_begins_where_it_was_and_nothing_is_heard_twice() -> None:
    assert heard([(7_000, 0), (7_000, REPORT_S), (7_100, 0)], 10_000) == [7_000, 7_100]
