"""Everything that an admin does, by clients that have no proto files of ours: reflection tells them all."""

from typing import Any

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.clients.channel import connect
from mesh.facts import Kind
from tests.e2e.conftest import Running
from tests.e2e.third_party import BufCurl, by_reflection

MODELS = "whimbrel.gateway.v1.ModelService"
GENERATION = "whimbrel.gateway.v1.GenerationService"
EMBEDDING = "whimbrel.gateway.v1.EmbeddingService"
CLUSTER = "whimbrel.gateway.v1.ClusterService"
CHANNELZ = "grpc.channelz.v1.Channelz"
SERVICES = {
    Kind.GATEWAY: (GENERATION, EMBEDDING, MODELS, CLUSTER),
    Kind.SCHEDULER: ("whimbrel.scheduler.v1.SchedulerService",),
    Kind.STORE: ("whimbrel.store.v1.StoreService",),
    Kind.WORKER: ("whimbrel.worker.v1.WorkerService",),
}
STANDARD = {
    "grpc.health.v1.Health",
    "grpc.channelz.v1.Channelz",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
REFLECTIONS = ("grpc-v1", "grpc-v1alpha")
SERVING, SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def address_of(shared: Running, kind: Kind) -> str:
    """Of the first process of a kind."""
    return shared.cluster.process(f"{kind}-1").address.result()


@pytest.mark.parametrize("reflection", REFLECTIONS)
async def test_buf_curl_manages_and_asks_a_model(shared: Running, reflection: str) -> None:
    call = BufCurl(shared.address, reflection)
    name, digest = f"curl/{reflection}", shared.library.digest("llama")
    source = {"source": str(shared.library.source("llama"))} if reflection == "grpc-v1" else {"checkpoint": digest}

    deployed = await call(f"{MODELS}/Deploy", {"name": name, "spec": {**source, "keepAlive": "30s"}})
    assert (deployed.code, deployed.error) == (0, "")
    *progress, last = deployed.messages
    assert all("progress" in message for message in progress)
    assert last["model"]["checkpoint"]["digest"] == digest
    assert last["model"]["state"] == "MODEL_STATE_COLD"

    assert name in {model["name"] for model in (await call(f"{MODELS}/List")).messages[0]["models"]}
    assert (await call(f"{MODELS}/Get", {"name": name})).messages[0]["model"]["spec"]["keepAlive"] == "30s"

    ask = {"model": name, "sampling": {"maxTokens": 3, "ignoreEos": True}}
    cold = (await call(f"{GENERATION}/Generate", {**ask, "text": "The tide is"})).messages
    assert "PHASE_LOADING" in {message["progress"]["phase"] for message in cold if "progress" in message}
    assert_answer(cold)
    turns = [{"role": "user", "content": "What is a whimbrel?"}]
    assert_answer((await call(f"{GENERATION}/Chat", {**ask, "messages": turns})).messages)

    async with call.reading(f"{MODELS}/Watch", {"names": [name]}) as changes:
        assert (await anext(changes))["model"]["state"] == "MODEL_STATE_READY"
        assert await anext(changes) == {"type": "EVENT_TYPE_BOOKMARK"}
        assert (await call(f"{MODELS}/Delete", {"name": name})).code == 0
        while (last := (await anext(changes))["type"]) == "EVENT_TYPE_UPDATED":
            pass  # its replica's state may still have been on its way
        assert last == "EVENT_TYPE_DELETED"
    gone = await call(f"{MODELS}/Get", {"name": name})
    assert gone.code == StatusCode.NOT_FOUND.value[0]
    assert gone.reason == "UNKNOWN_MODEL"

    members = (await call(f"{CLUSTER}/Get")).messages[0]["cluster"]["members"]
    assert {member["id"] for member in members} == {process.program.id for process in shared.cluster.processes}


def assert_answer(messages: tuple[dict[str, Any], ...]) -> None:
    """Three tokens, and an end that says so."""
    kinds = dict.fromkeys(next(iter(message)) for message in messages if "progress" not in message)
    assert list(kinds) == ["started", "delta", "finished"]
    assert sum(len(message["delta"]["tokenIds"]) for message in messages if "delta" in message) == 3
    finished = messages[-1]["finished"]
    assert finished["finishReason"] == "FINISH_REASON_LENGTH"
    assert finished["usage"]["completionTokens"] == 3


async def test_grpc_requests_manages_and_asks_a_model(shared: Running) -> None:
    digest = shared.library.digest("llama")
    async with by_reflection(shared.address) as client:
        assert set(await client.service_names()) == {*SERVICES[Kind.GATEWAY], *STANDARD}
        deploy = {"name": "requests", "spec": {"checkpoint": digest}}
        assert [message async for message in await client.request(MODELS, "Deploy", deploy)][-1]["model"]["etag"]
        assert (await client.request(MODELS, "Get", {"name": "requests"}))["model"]["state"] == "MODEL_STATE_COLD"
        ask = {"model": "requests", "text": "Hello", "sampling": {"max_tokens": 3, "ignore_eos": True}}
        answer = [message async for message in await client.request(GENERATION, "Generate", ask)]
        assert answer[-1]["finished"]["usage"]["completion_tokens"] == 3
        told = [
            message
            async for message in await client.request(EMBEDDING, "Embed", {"model": "requests", "texts": ["Hello"]})
        ]
        assert [len(message["embeddings"]["embeddings"]) for message in told if "embeddings" in message] == [1]
        listed = (await client.request(MODELS, "List", {}))["models"]
        assert "requests" in {model["name"] for model in listed}
        await client.request(MODELS, "Delete", {"name": "requests"})
        with pytest.raises(aio.AioRpcError) as gone:
            await client.request(MODELS, "Get", {"name": "requests"})
        assert gone.value.code() is StatusCode.NOT_FOUND


@pytest.mark.parametrize("reflection", REFLECTIONS)
@pytest.mark.parametrize("kind", SERVICES)
async def test_reflection_and_channelz_are_on_every_service(shared: Running, kind: Kind, reflection: str) -> None:
    call = BufCurl(address_of(shared, kind), reflection)
    assert await call.services() == {*SERVICES[kind], *STANDARD}
    (servers,) = (await call(f"{CHANNELZ}/GetServers")).messages
    (server,) = servers["server"]
    assert int(server["data"]["callsStarted"]) > 0


@pytest.mark.parametrize("kind", SERVICES)
async def test_health_is_told_for_each_service_by_name(shared: Running, kind: Kind) -> None:
    async with connect(address_of(shared, kind)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES[kind]):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await stub.Check(request, timeout=10)).status == SERVING
            watching = stub.Watch(request, timeout=10)
            assert (await watching.read()).status == SERVING
            watching.cancel()
        unknown = health_pb2.HealthCheckRequest(service="whimbrel.nobody.v1.Nothing")
        watching = stub.Watch(unknown, timeout=10)
        assert (await watching.read()).status == SERVICE_UNKNOWN
        watching.cancel()
        with pytest.raises(aio.AioRpcError) as missing:
            await stub.Check(unknown, timeout=10)
        assert missing.value.code() is StatusCode.NOT_FOUND
