"""An engine of no model: answers with the prompts themselves, shifted and cut as its arguments say."""

import sys

from benchmarks.child import reply
from benchmarks.engine.batch import BATCH, OUTCOME, Watch

if __name__ == "__main__":
    shift, missing = int(sys.argv[1]), int(sys.argv[2])
    reply("ready")
    for line in sys.stdin:
        batch = BATCH.validate_json(line)
        watch = Watch(len(batch.prompts))
        for number in range(len(batch.prompts)):
            watch.first(number)
        answers = [[t + shift for t in prompt[: batch.tokens - missing]] for prompt in batch.prompts]
        reply(OUTCOME.dump_json(watch.outcome(answers)).decode())
