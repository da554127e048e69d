"""python -m benchmarks.scheduling.matrix run | show: all policies on all of the paper's experiments and the harder
markets, seed by seed, in pieces: what is in the directory is not run again, and machines may share the work."""

import argparse
import sys
from pathlib import Path

import policy
import sim
from mesh.compiled import use

COMPILED = [one.__name__ for one in (policy, sim) if use(one)]  # before any of either is imported

from benchmarks.scheduling.matrix.cells import experiments, read, summary, write
from benchmarks.scheduling.matrix.runs import CASES, LONG, SEEDS, cells, found
from sim.processes import spread


def main() -> None:
    """Runs what is missing, or prints what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling.matrix", description=__doc__)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="what the directory does not have, the most telling first")
    running.add_argument("--shard", default="0/1", metavar="I/N", help="every Nth run, from the Ith on")
    running.add_argument("--jobs", type=int, default=1, help="processes")
    running.add_argument("--seeds", default=f"0-{SEEDS - 1}", metavar="FIRST-LAST")
    running.add_argument("--cases", help="separated by commas, instead of all")
    running.set_defaults(do=_run)
    showing = commands.add_parser("show", help="tables, and who is ahead, over the seeds that all policies have had")
    showing.add_argument("--plots", type=Path, help="a directory to draw latencies into")
    showing.set_defaults(do=_show)
    for one in (running, showing):
        one.add_argument("--out", type=Path, required=True, metavar="DIR", help="of results: files of JSON lines")
    args = parser.parse_args()
    args.do(args)


def _run(args: argparse.Namespace) -> None:
    index, count = map(int, args.shard.split("/"))
    cases = args.cases.split(",") if args.cases else (*CASES, *LONG)
    first, last = map(int, args.seeds.split("-"))
    args.out.mkdir(parents=True, exist_ok=True)
    done = {one.cell for one in read(args.out)}
    left = [cell for cell in cells(cases, range(first, last + 1))[index::count] if cell not in done]
    with (args.out / f"{args.seeds}-{index}-of-{count}.jsonl").open("a") as file:
        for number, one in enumerate(spread(found, left, args.jobs), 1):
            if one:
                write(file, one)
            what = f"{' '.join(map(str, one.cell))} {one.processor_s:.1f} s" if one else "one was given up"
            sys.stdout.write(f"{number} of {len(left)}: {what}\n")
            sys.stdout.flush()


def _show(args: argparse.Namespace) -> None:
    there = list(read(args.out))
    for one in (compared := experiments(there)):
        sys.stdout.write(one.text() + "\n")
    sys.stdout.write("\n" + summary(compared) + "\n")
    if args.plots:
        from benchmarks.scheduling.matrix.drawing import draw  # noqa: PLC0415  matplotlib is an extra

        draw(there, args.plots)


if __name__ == "__main__":
    main()
