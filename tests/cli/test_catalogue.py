"""deploy, import, delete and models."""

from pathlib import Path

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2 as words

from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import CHECKPOINT, Fakes, model

HERE = Path.cwd()


async def test_deploy_sends_an_absolute_directory_and_the_keep_alive(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("deploy", "curlew", "some/model", "--keep-alive", "1m30s")
    [request] = fakes.gateway.requests
    assert request.name == "curlew"
    assert request.spec.source == f"{HERE}/some/model"
    assert request.spec.keep_alive.ToSeconds() == 90
    assert ended.out.startswith("deployed curlew: LlamaForCausalLM · bfloat16 · 3.0 MiB")
    assert "reading ..." in ended.err


@pytest.mark.parametrize("command", [["deploy", "curlew"], ["import"]])
@pytest.mark.parametrize("address", ["s3://bucket/dir", "hf://org/name@main", "https://host/x"])
async def test_addresses_are_sent_as_they_are(
    fakes: Fakes, whimbrel: Whimbrel, command: list[str], address: str
) -> None:
    await whimbrel.run(*command, address)
    [request] = fakes.gateway.requests
    assert (request.spec.source if command[0] == "deploy" else request.source) == address


async def test_deploy_of_a_checkpoint_leaves_source_and_keep_alive_unset(fakes: Fakes, whimbrel: Whimbrel) -> None:
    await whimbrel.run("deploy", "curlew", "--checkpoint", CHECKPOINT.digest)
    [request] = fakes.gateway.requests
    assert (request.spec.checkpoint, request.spec.source) == (CHECKPOINT.digest, "")
    assert not request.spec.HasField("keep_alive")


async def test_deploy_names_the_numerics_level_and_refuses_one_that_is_none(fakes: Fakes, whimbrel: Whimbrel) -> None:
    await whimbrel.run("deploy", "curlew", "some/model", "--numerics", "batch_invariant")
    [request] = fakes.gateway.requests
    assert request.spec.numerics == words.NUMERICS_LEVEL_BATCH_INVARIANT
    assert (await whimbrel.run("deploy", "curlew", "some/model", "--numerics", "exact")).code == 2


async def test_deploy_sends_how_many_replicas_there_are_to_be(fakes: Fakes, whimbrel: Whimbrel) -> None:
    bounds = ("--min-replicas", "1", "--max-replicas", "4", "--target-concurrency", "8")
    await whimbrel.run("deploy", "curlew", "some/model", *bounds)
    [request] = fakes.gateway.requests
    spec = request.spec
    assert (spec.min_replicas, spec.max_replicas, spec.target_concurrency) == (1, 4, 8)
    assert (await whimbrel.run("deploy", "curlew", "some/model", "--min-replicas", "-1")).code == 2


async def test_deploy_wants_either_a_directory_or_a_checkpoint(fakes: Fakes, whimbrel: Whimbrel) -> None:
    for arguments in ([], ["some/model", "--checkpoint", CHECKPOINT.digest]):
        ended = await whimbrel.run("deploy", "curlew", *arguments)
        assert ended.code == 2
        assert "SOURCE or --checkpoint" in ended.err
    assert not fakes.gateway.requests


async def test_import_of_an_adapter_names_its_base_and_an_address_is_left_as_it_is(
    fakes: Fakes, whimbrel: Whimbrel
) -> None:
    await whimbrel.run("import", "hf://curlews/song@v1", "--base", "cd" * 32)
    [request] = fakes.gateway.requests
    assert (request.source, request.base) == ("hf://curlews/song@v1", "cd" * 32)


async def test_an_adapters_source_is_deployed_with_its_base(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("deploy", "shy", "hf://curlews/song@v1", "--base", "cd" * 32)
    [request] = fakes.gateway.requests
    assert (request.spec.source, request.spec.base, ended.code) == ("hf://curlews/song@v1", "cd" * 32, 0)


async def test_models_shows_the_part_that_is_nearer_and_a_version_that_is_making_way(
    fakes: Fakes, whimbrel: Whimbrel
) -> None:
    held = pb.StoredCheckpoint(
        checkpoint=CHECKPOINT.digest, bytes=100, tier=words.TIER_DISK, disk_bytes=100, dram_bytes=62
    )
    fakes.cluster.members = [pb.Member(kind="store", id="store-1", store=pb.StoreStatus(checkpoints=[held]))]
    replicas = [
        pb.ModelReplica(worker_id="worker-1", state=pb.REPLICA_STATE_READY, checkpoint="cd" * 32),
        pb.ModelReplica(worker_id="worker-1", state=pb.REPLICA_STATE_LOADING, checkpoint=CHECKPOINT.digest),
    ]
    fakes.gateway.models = [model("curlew", replicas=replicas, previous_checkpoint="cd" * 32)]
    line = (await whimbrel.run("models")).out.splitlines()[1]
    assert "disk, dram 62 %" in line
    assert "worker-1 ready (cdcdcdcdcdcd), worker-1 loading " in line
    assert line.split()[-2:] == [CHECKPOINT.digest[:12], "cdcdcdcdcdcd"]


async def test_models_shows_how_many_replicas_each_is_to_have(fakes: Fakes, whimbrel: Whimbrel) -> None:
    spec = pb.ModelSpec(min_replicas=1, max_replicas=4, target_concurrency=8)
    fakes.gateway.models = [model("bound", spec=spec), model("free")]
    lines = (await whimbrel.run("models")).out.splitlines()
    at = lines[0].split().index("bounds")
    assert [line.split()[at : at + 2] for line in lines] == [["bounds", "target"], ["1–4", "8"], ["0–any", "slots"]]


async def test_import_prints_the_digest_alone_on_stdout(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("import", "some/model")
    assert (ended.code, ended.out) == (0, f"{CHECKPOINT.digest}\n")
    assert "39 tensors in 6 units" in ended.err


async def test_delete_of_an_unknown_model_fails(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.models = [model("curlew")]
    assert (await whimbrel.run("delete", "curlew")).out == "deleted curlew\n"
    ended = await whimbrel.run("delete", "godwit")
    assert (ended.code, ended.out) == (1, "")
    assert "UNKNOWN_MODEL" in ended.err


async def test_models_lists_every_page_in_lines_that_a_pipe_does_not_fold(fakes: Fakes, whimbrel: Whimbrel) -> None:
    names = [f"curlew-{number}" for number in range(5)]
    fakes.gateway.models = [model(name) for name in names]
    lines = (await whimbrel.run("models")).out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[name, "cold"] for name in names]
    assert all("LlamaForCausalLM" in line and CHECKPOINT.digest[:12] in line for line in lines[1:])


async def test_an_empty_catalogue_says_how_to_fill_it(whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("models")
    assert (ended.code, ended.out) == (0, "")
    assert "whimbrel deploy" in ended.err
