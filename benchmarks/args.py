"""The command line that every benchmark has. What each adds is in its own __main__."""

import argparse


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser with --quick and --json for `python -m benchmarks.<name>`."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--quick", action="store_true", help="smaller models and fewer rounds: ends within a minute")
    made.add_argument("--json", action="store_true", help="print one JSON object of figures as the last line")
    return made
