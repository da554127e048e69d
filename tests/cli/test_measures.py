"""Times and sizes as people write them."""

import pytest
import typer

from cli.measures import bytes_text, parse_duration_s, speed_text, time_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("2s", 2.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1d", 86400.0),
    ],
)
def test_a_duration_is_read_with_or_without_units(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5x", "-3s", "m", "5 m", "1h 30", "inf", "nan", "s5"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="30s, 5m"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (0.0004, "0.4 ms"), (0.25, "250 ms"), (3.24, "3.24 s"), (300, "5 min")]
)
def test_a_time_is_shown_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 40, "3.0 TiB")])
def test_bytes_are_shown_in_binary_units(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_a_speed_that_was_not_measured_is_a_dash() -> None:
    assert speed_text(None) == "–"
    assert speed_text(92.06) == "92.1 tokens/s"
