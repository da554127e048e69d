"""How benchmarks say things to people."""

from benchmarks.machine import Machine, load_average
from benchmarks.series import Series


def say(line: str) -> None:
    """A line, at once."""
    print(line, flush=True)


def say_machine(machine: Machine) -> None:
    """What it runs on, and how busy that is."""
    say(f"{machine.text()}; load average {load_average():.1f}")


def row(label: str, series: Series, unit: str, more: str = "") -> None:
    """A line of a table: a median with its spread."""
    say(f"  {label:<32}{series.text(unit)}{'  ' if more else ''}{more}")
