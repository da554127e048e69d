"""The command line's options of a trace."""

import argparse

from sim.traces.formats import FORMATS
from sim.traces.replay import Assignment, Replay, parse
from sim.traces.row import Window


def add_options(parser: argparse.ArgumentParser) -> None:
    """--trace, and what of it."""
    formats = ", ".join(FORMATS)
    parser.add_argument(
        "--trace",
        type=parse,
        metavar="FORMAT:PATH",
        help=f"ask what this trace asks, instead of the workload, of the workload's cluster; formats: {formats}",
    )
    parser.add_argument("--trace-from", type=float, default=0.0, metavar="S", help="seconds from the trace's begin")
    parser.add_argument("--trace-for", type=float, default=3600.0, metavar="S", help="seconds of it (default: an hour)")
    parser.add_argument(
        "--trace-rps", type=float, metavar="RATE", help="thin it by chance, by seed; default: all of it"
    )
    parser.add_argument(
        "--trace-assignment",
        type=Assignment,
        choices=list(Assignment),
        default=Assignment.STRIPE,
        help="which functions or clients go to which model (default: by turns)",
    )


def replay(args: argparse.Namespace, models: int) -> Replay | None:
    """What they say, for so many models; None without --trace."""
    if args.trace is None:
        return None
    name, path = args.trace
    window = Window(args.trace_from, args.trace_for)
    return Replay(name, path, models, window, args.trace_rps, args.trace_assignment)
