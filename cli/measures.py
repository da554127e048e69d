"""Lengths of time and amounts of bytes, as people write and read them."""

import re

import typer

UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
WHOLE = re.compile(rf"(?:{PART.pattern})+")
KIB = 1024


def parse_duration_s(text: str) -> float:
    """Seconds in "90", "500ms", "5m" or "1h30m"; typer.BadParameter otherwise."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not WHOLE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a length of time; write 30s, 5m, 1h30m, or 0")
    return sum(float(number) * UNITS_S[unit] for number, unit in PART.findall(text))


def time_text(seconds: float) -> str:
    """Such as "0.4 ms", "250 ms", "3.2 s" or "5 min"."""
    if seconds <= 0:
        return "0 s"
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min"


def bytes_text(count: float) -> str:
    """Such as "512 B" or "3.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= KIB
    return f"{count:.1f} TiB"


def speed_text(tokens_per_s: float | None) -> str:
    """Such as "92.1 tokens/s"; a dash when there was nothing to measure."""
    return "–" if tokens_per_s is None else f"{tokens_per_s:.1f} tokens/s"
