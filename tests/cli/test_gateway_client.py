"""The typed client beyond what the commands use of it."""

import asyncio
from contextlib import aclosing

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.clients.channel import connect
from mesh.clients.gateway import GatewayClient, NoGateway
from mesh.clients.gateway_records import Change, ModelState
from mesh.errors import NotFound
from mesh.facts import Tier
from tests.cli.fake_gateway import Fakes, model


async def test_update_names_in_its_mask_what_is_given_and_nothing_else(fakes: Fakes) -> None:
    async with connect(fakes.address) as channel:
        client = GatewayClient(channel, fakes.address)
        await client.update("curlew", keep_alive_s=0.0, etag="3")
        await client.update("curlew", checkpoint="ab")
    first, second = fakes.gateway.requests
    assert list(first.update_mask.paths) == ["spec.keep_alive"]
    assert first.model.etag == "3"
    assert first.model.spec.HasField("keep_alive")
    assert list(second.update_mask.paths) == ["spec.checkpoint"]


async def test_a_watch_tells_what_was_there_from_what_changed_and_ends_when_closed(fakes: Fakes) -> None:
    loading = pb.Model(name="curlew", state=pb.MODEL_STATE_LOADING)
    for kind, changed in (
        (pb.EVENT_TYPE_EXISTING, model("curlew")),
        (pb.EVENT_TYPE_BOOKMARK, None),
        (pb.EVENT_TYPE_UPDATED, loading),
    ):
        fakes.gateway.changes.put_nowait(pb.ModelServiceWatchResponse(type=kind, model=changed))
    async with connect(fakes.address) as channel:
        async with aclosing(GatewayClient(channel, fakes.address).watch(["curlew"])) as changes:
            existing, bookmark, updated = [await anext(changes) for _ in range(3)]
        async with asyncio.timeout(60):
            await fakes.gateway.cancelled.wait()
    assert existing.change is Change.EXISTING
    assert existing.model
    assert (existing.model.state, existing.model.nearest_tier) == (ModelState.COLD, Tier.DISK)
    assert (bookmark.change, bookmark.model) == (Change.BOOKMARK, None)
    assert updated.model
    assert (updated.model.state, updated.model.nearest_tier) == (ModelState.LOADING, None)


async def test_nobody_at_the_address_is_an_error_of_its_own() -> None:
    async with connect("127.0.0.1:1") as channel:
        with pytest.raises(NoGateway, match=r"127\.0\.0\.1:1"):
            await GatewayClient(channel, "127.0.0.1:1").list()


async def test_get_finds_one_model_or_says_that_there_is_none(fakes: Fakes) -> None:
    fakes.gateway.models = [model("curlew")]
    async with connect(fakes.address) as channel:
        client = GatewayClient(channel, fakes.address)
        assert (await client.get("curlew")).name == "curlew"
        with pytest.raises(NotFound, match="godwit"):
            await client.get("godwit")
