"""update and rollback."""

from pathlib import Path

from whimbrel.inference.v1 import inference_pb2 as words

from mesh.errors import Unsuitable
from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import CHECKPOINT, Fakes, model

HERE = Path.cwd()


async def test_update_imports_the_source_and_then_points_the_model_at_what_came_of_it(
    fakes: Fakes, whimbrel: Whimbrel
) -> None:
    fakes.gateway.models = [model("curlew")]
    ended = await whimbrel.run("update", "curlew", "newer/model")
    imported, updated = fakes.gateway.requests
    assert imported.source == f"{HERE}/newer/model"
    assert (updated.model.name, updated.model.spec.checkpoint) == ("curlew", CHECKPOINT.digest)
    assert list(updated.update_mask.paths) == ["spec.checkpoint"]
    assert "writing ..." in ended.err
    assert ended.out.startswith(f"updated curlew to {CHECKPOINT.digest[:12]}: LlamaForCausalLM")
    assert "to go back: whimbrel rollback curlew" in ended.err


async def test_update_of_a_model_that_is_not_there_imports_nothing(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("update", "godwit", "newer/model")
    assert ended.code == 1
    assert not fakes.gateway.requests


async def test_update_to_a_checkpoint_and_of_the_keep_alive_alone(fakes: Fakes, whimbrel: Whimbrel) -> None:
    await whimbrel.run("update", "curlew", "--checkpoint", CHECKPOINT.digest)
    await whimbrel.run("update", "curlew", "--keep-alive", "5m")
    first, second = fakes.gateway.requests
    assert first.model.spec.checkpoint == CHECKPOINT.digest
    assert list(second.update_mask.paths) == ["spec.keep_alive"]
    assert second.model.spec.keep_alive.ToSeconds() == 300


async def test_update_of_the_numerics_level_alone(fakes: Fakes, whimbrel: Whimbrel) -> None:
    await whimbrel.run("update", "curlew", "--numerics", "path_invariant")
    [request] = fakes.gateway.requests
    assert list(request.update_mask.paths) == ["spec.numerics"]
    assert request.model.spec.numerics == words.NUMERICS_LEVEL_PATH_INVARIANT


async def test_update_of_a_bound_to_zero_is_a_change(fakes: Fakes, whimbrel: Whimbrel) -> None:
    await whimbrel.run("update", "curlew", "--min-replicas", "0", "--target-concurrency", "3")
    [request] = fakes.gateway.requests
    assert list(request.update_mask.paths) == ["spec.min_replicas", "spec.target_concurrency"]
    assert (request.model.spec.min_replicas, request.model.spec.target_concurrency) == (0, 3)


async def test_update_wants_to_know_what_changes(fakes: Fakes, whimbrel: Whimbrel) -> None:
    for arguments in ([], ["some/model", "--checkpoint", CHECKPOINT.digest]):
        assert (await whimbrel.run("update", "curlew", *arguments)).code == 2
    assert not fakes.gateway.requests


async def test_rollback_says_what_the_model_points_at_now(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("rollback", "curlew")
    [request] = fakes.gateway.requests
    assert request.name == "curlew"
    assert ended.out.startswith(f"rolled back curlew to {CHECKPOINT.digest[:12]}: LlamaForCausalLM")


async def test_rollback_of_a_model_with_one_checkpoint_fails_with_the_reason(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.error = Unsuitable("it has had one checkpoint only", reason="NO_PREVIOUS")
    ended = await whimbrel.run("rollback", "curlew")
    assert (ended.code, ended.out) == (1, "")
    assert "NO_PREVIOUS" in ended.err
