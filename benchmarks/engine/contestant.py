"""One engine in a process of its own: python -m benchmarks.engine.contestant ENGINE DIRECTORY DTYPE

It loads the model, says "ready", and then runs one batch for each line: a Batch as JSON in, an Outcome as JSON out.
"""

import sys
from pathlib import Path

from benchmarks.answers import answers_only
from benchmarks.engine.batch import BATCH, OUTCOME
from benchmarks.engine.engines import ENGINES


def main(name: str, directory: str, dtype: str) -> None:
    """Until standard input ends."""
    answers = answers_only()
    engine = ENGINES[name](Path(directory), dtype)
    answers.write("ready\n")
    for line in sys.stdin:
        answers.write(OUTCOME.dump_json(engine.run(BATCH.validate_json(line))).decode() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:4])
