"""The packed runner on further architectures: each in one schedule that has everything in it."""

import pytest

from services.worker.engine.batch import Limits
from tests.services.worker.engine.test_moving import hand_over, steps
from tests.services.worker.engine.tiny import FAMILIES, FURTHER, greedy, prompt, replica, request, run, tokens_of

COUNT = 12
LENGTHS = (9, 10, 40, 11)


def test_there_are_as_many_as_the_engine_claims() -> None:
    assert len(FAMILIES.keys() | FURTHER.keys()) >= 26


@pytest.mark.parametrize("family", FURTHER)
def test_batches_chunks_prefixes_and_preemptions_equal_one_at_a_time(family: str) -> None:
    model = replica(family, blocks=9, limits=Limits(batch_tokens=24))
    prompts = {f"r{n}": prompt(n) for n in LENGTHS}
    produced = run(model, [request(name, ids, COUNT) for name, ids in prompts.items()], steps_between=1)
    assert tokens_of(produced) == {name: greedy(family, ids, COUNT) for name, ids in prompts.items()}
    first = prompts["r40"]
    second = first + greedy(family, first, COUNT) + prompt(3)
    assert tokens_of(run(model, [request("again", second, 6)])) == {"again": greedy(family, second, 6)}
    stats = model.stats()
    assert stats.preemptions > 0
    assert stats.free_blocks == stats.total_blocks


@pytest.mark.parametrize("family", FURTHER)
def test_a_sequence_goes_on_elsewhere_from_its_kv_and_from_its_tokens(family: str) -> None:
    answer = greedy(family, prompt(40), COUNT)
    source, target = replica(family), replica(family)
    source.add(request("moved", prompt(40), COUNT))
    target.add(request("busy", prompt(9), COUNT))
    produced = [*steps(source, 5), *steps(target, 2)]
    hand_over(source, target, "moved")
    produced += run(target, [])
    assert tokens_of(produced) == {"moved": answer, "busy": greedy(family, prompt(9), COUNT)}
    rebuilt = request("rebuilt", prompt(40), COUNT, generated=answer[:5])
    assert tokens_of(run(replica(family), [rebuilt])) == {"rebuilt": answer[5:]}
