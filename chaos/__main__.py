"""python -m chaos: has clients ask a real cluster while its processes die, and counts what that did to the answers."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from chaos.crowd import Crowd
from chaos.deeds import Deeds
from chaos.leftovers import leftovers
from chaos.peace import answers_in_peace
from chaos.questions import Question, questions
from chaos.report import Outcome
from chaos.stage import MODELS, Library, library, stormy
from chaos.storm import Damage, Storm
from chaos.verdict import judge
from chaos.witness import disagreements
from mesh.errors import MeshError

ABOUT = """
Starts two stores, two gateways, two schedulers, workers and a Valkey as processes of this machine. Clients ask
questions of many sorts: greedy, seeded, without a seed, with penalties, stop texts, guides, likelihoods, of several
answers, and some leave early. Meanwhile processes of every kind are killed (and started again), stopped and continued,
Redis is killed and stalled, requests are moved and workers drained, all drawn from the seed. A client whose stream
breaks comes back to the other gateway with what it has.

Then each question is asked again, of a cluster to which nothing happens, and each answer compared: its tokens, its text
and its end. Greedy answers are compared with stock transformers as well. An answer that ended early is lost, one
in which something came again is duplicated, any other difference is wrong.
"""


def main() -> None:
    """Exit codes: 0 every answer is whole, 1 one is not or something was left behind, 2 it could not be run."""
    options = _options()
    _say(f"seed {options.seed}: python -m chaos --seed {options.seed} --questions {options.questions}")
    try:
        outcome = asyncio.run(_run(options))
    except MeshError as error:
        _say(f"chaos: {error.message}")
        sys.exit(2)
    for line in outcome.lines():
        _say(line)
    _say(outcome.json())
    sys.exit(0 if outcome.good else 1)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="python -m chaos",
        description=ABOUT,
        epilog="exit codes: 0 all whole, 1 something was not, 2 it could not be run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="60 questions and 3 workers: ends within a minute or so")
    made.add_argument("--questions", type=int, help="how many; 2000 unless --quick")
    made.add_argument("--workers", type=int, help="4 unless --quick")
    made.add_argument("--clients", type=int, default=24, help="that ask at once (%(default)s)")
    made.add_argument("--seed", type=int, help="of all that is drawn; one is made up unless given")
    made.add_argument("--logs", type=Path, help="directory that keeps the processes' logs")
    options = made.parse_args()
    options.questions = options.questions or (60 if options.quick else 2000)
    options.workers = options.workers or (3 if options.quick else 4)
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    return options


async def _run(options: argparse.Namespace) -> Outcome:
    began_s = time.monotonic()
    asked = questions(options.seed, options.questions, [model.name for model in MODELS])
    with tempfile.TemporaryDirectory(prefix="whimbrel-chaos-") as scratch:
        directory = options.logs or Path(scratch)
        shelf = library(Path(scratch, "models"))
        crowd, damage, left = await _storm(options, directory / "storm", shelf, asked)
        _say(f"{time.monotonic() - began_s:.0f} s; asking all of it again, in peace")
        peace = await answers_in_peace(directory / "peace", shelf, asked)
        verdicts = [judge(heard, peace[heard.question.same]) for heard in crowd.heard]
        witnessed, others = disagreements(crowd.heard, shelf)
    return Outcome(options.seed, time.monotonic() - began_s, crowd.heard, verdicts, damage, left, witnessed, others)


async def _storm(
    options: argparse.Namespace, directory: Path, shelf: Library, asked: tuple[Question, ...]
) -> tuple[Crowd, Damage, list[str]]:
    async with stormy(directory, options.workers, shelf) as (cluster, valkey):
        crowd = Crowd(asked, cluster.gateway_addresses, options.clients, options.seed, _say)
        storm, calm = Storm(cluster, crowd, Deeds(cluster, valkey, crowd), _say), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.rage(options.seed, calm))
            await crowd.ask_all()
            calm.set()
        return crowd, storm.damage, await leftovers(cluster)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
