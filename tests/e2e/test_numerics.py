"""A model deployed at an invariant level, from the gateway to the workers' facts."""

from mesh.clients.gateway_records import Model, SamplingWishes
from mesh.facts import NumericsLevel, ReplicaFacts
from tests.e2e.asking import generate_ids, whole
from tests.e2e.conftest import Running
from tests.e2e.library import BIG, prompt_ids

NAME = "path-invariant"


async def replicas(shared: Running) -> list[ReplicaFacts]:
    """Of the model, on whichever worker."""
    workers = [member.worker for member in await shared.client.cluster() if member.worker]
    return [replica for worker in workers for replica in worker.replicas if replica.model == NAME]


async def test_a_model_at_an_invariant_level_answers_as_transformers_does_and_shows_its_fingerprint(
    shared: Running,
) -> None:
    digest, level = shared.library.digest(BIG), NumericsLevel.PATH_INVARIANT
    events = shared.client.deploy(NAME, checkpoint=digest, numerics=level)
    (model,) = [event async for event in events if isinstance(event, Model)]
    assert model.numerics is level
    prompt, greedy = prompt_ids(37), SamplingWishes(temperature=0.0, max_tokens=24)
    answer = await whole(generate_ids(shared.address, NAME, prompt, greedy))
    assert answer.token_ids == shared.library.reference(BIG, prompt, 24)
    (replica,) = await replicas(shared)
    assert (replica.numerics, len(replica.fingerprint)) == (level, 32)
