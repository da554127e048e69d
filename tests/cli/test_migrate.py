"""requests and migrate."""

from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2 as words

from mesh.clients.wire import duration
from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import Fakes


def running(request_id: str, worker_id: str = "", **more: str) -> pb.RunningRequest:
    """A request of curlew's."""
    return pb.RunningRequest(request_id=request_id, model="curlew", worker_id=worker_id, age=duration(3.0), **more)


async def test_requests_are_listed_with_where_they_run_and_where_they_go(fakes: Fakes, whimbrel: Whimbrel) -> None:
    assert (await whimbrel.run("requests")).out == "no request waits or runs\n"
    fakes.cluster.running = [
        running("one", "worker-1", tenant="waders"),
        running("two", "worker-1", to_worker_id="worker-2"),
        running("three"),
    ]
    ended = await whimbrel.run("requests")
    assert ended.code == 0
    assert [line.split() for line in ended.out.splitlines()] == [
        ["request", "model", "worker", "age", "tenant"],
        ["one", "curlew", "worker-1", "3", "s", "waders"],
        ["two", "curlew", "worker-1", "→", "worker-2", "3", "s"],
        ["three", "curlew", "(waits)", "3", "s"],
    ]


async def test_a_request_goes_where_it_is_told_and_the_way_it_is_told(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.cluster.running = [running("one", "worker-1")]
    ended = await whimbrel.run("migrate", "one", "--to", "worker-2", "--kind", "kv")
    assert ended.out == ("one: worker-1 → worker-2, 3.0 MiB of KV copied in 500 ms, 20 ms without a token, exact\n")
    ended = await whimbrel.run("migrate", "one")
    assert ended.out == "one: worker-1 → worker-9, its tokens computed there in 500 ms, 20 ms without a token, exact\n"
    told, left = fakes.cluster.requests
    assert (told.request_id, told.to_worker_id, told.kind) == ("one", "worker-2", words.MOVE_KIND_KV)
    assert (left.to_worker_id, left.kind) == ("", words.MOVE_KIND_UNSPECIFIED)


async def test_a_request_that_does_not_run_cannot_go_anywhere(fakes: Fakes, whimbrel: Whimbrel) -> None:
    ended = await whimbrel.run("migrate", "gone")
    assert (ended.code, ended.out) == (1, "")
    assert "error: no request 'gone' runs [UNKNOWN_REQUEST]" in ended.err
    assert (await whimbrel.run("migrate", "one", "--kind", "rebuilt")).code == 2
