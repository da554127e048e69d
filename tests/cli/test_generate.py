"""whimbrel generate: what is streamed, what is shown, what is sent, what an error looks like."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.errors import InvalidRequest, NoRoom, Unreachable, Unsuitable
from tests.cli.conftest import Whimbrel
from tests.cli.fake_gateway import Fakes, finished, loading


async def _tale(request: Any) -> AsyncIterator[dict[str, Any]]:
    """A cold start, two deltas, an end."""
    for done in (0, 1 << 20, 2 << 20):
        yield {"progress": loading(done, 2 << 20)}
    yield {"delta": pb.Delta(text="A curlew ", seq=0)}
    yield {"delta": pb.Delta(text="calls.", seq=2)}
    yield {"finished": finished()}


async def test_on_a_pipe_there_is_the_text_and_nothing_else(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    ended = await whimbrel.run("generate", "curlew", "What calls?")
    assert (ended.code, ended.out, ended.err) == (0, "A curlew calls.\n", "")


async def test_text_is_written_when_it_comes(fakes: Fakes, whimbrel: Whimbrel) -> None:
    seen = asyncio.Event()

    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"delta": pb.Delta(text="first", seq=0)}
        await seen.wait()
        yield {"delta": pb.Delta(text=" second", seq=1)}
        yield {"finished": finished()}

    fakes.gateway.answer = answer
    process = await whimbrel.start("generate", "curlew", "What calls?")
    assert process.stdout
    assert await process.stdout.readexactly(5) == b"first"  # the second is not sent before this is read
    seen.set()
    rest, _ = await process.communicate()
    assert rest == b" second\n"


async def test_on_a_terminal_the_start_and_its_cost_are_shown(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    ended = await whimbrel.run_on_terminal("generate", "curlew", "What calls?")
    assert ended.code == 0
    assert "loading from disk" in ended.out
    assert "2.0 MiB of 2.0 MiB" in ended.out
    assert "A curlew calls." in ended.out
    assert "disk start · queue 50 ms · load 250 ms · first token 400 ms · 10 tokens · 10.0 tokens/s" in ended.out


async def test_control_characters_cannot_steer_a_terminal(fakes: Fakes, whimbrel: Whimbrel) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"delta": pb.Delta(text="\x1b[31mred\x07 [bold]", seq=0)}
        yield {"finished": finished()}

    fakes.gateway.answer = answer
    shown = await whimbrel.run_on_terminal("generate", "curlew", "?")
    assert "␛[31mred␇ [bold]" in shown.out
    piped = await whimbrel.run("generate", "curlew", "?")
    assert piped.out == "\x1b[31mred\x07 [bold]\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_ctrl_c_cancels_the_request(fakes: Fakes, whimbrel: Whimbrel, number: signal.Signals, code: int) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"delta": pb.Delta(text="so far", seq=0)}
        await asyncio.Event().wait()

    fakes.gateway.answer = answer
    process = await whimbrel.start("generate", "curlew", "What calls?")
    assert process.stdout
    await process.stdout.readexactly(6)
    process.send_signal(number)
    async with asyncio.timeout(20):
        await fakes.gateway.cancelled.wait()
    _, err = await process.communicate()
    assert (process.returncode, err) == (code, b"")


async def test_what_is_asked_for_is_sent_and_the_rest_is_left_to_the_model(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    options = ["--max-tokens", "7", "--temperature", "0", "--top-k", "3", "--seed", "0", "--stop", "a", "--stop", "b"]
    await whimbrel.run("generate", "curlew", "Once", "--raw", *options)
    await whimbrel.run("generate", "curlew", "Once", "--chat")
    raw, chat = fakes.gateway.requests
    assert (raw.model, raw.text, raw.sampling.max_tokens, raw.sampling.top_k) == ("curlew", "Once", 7, 3)
    assert raw.sampling.HasField("seed")
    assert raw.sampling.HasField("temperature")
    assert not raw.sampling.HasField("top_p")
    assert list(raw.sampling.stop) == ["a", "b"]
    assert [(turn.role, turn.content) for turn in chat.messages] == [("user", "Once")]
    assert not chat.sampling.ListFields()


async def test_the_prompt_can_come_from_stdin(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    await whimbrel.run("generate", "curlew", "-", "--raw", stdin=b"from a pipe")
    assert fakes.gateway.requests[0].text == "from a pipe"


async def test_a_model_without_a_template_continues_the_prompt_unless_a_chat_was_asked_for(
    fakes: Fakes, whimbrel: Whimbrel
) -> None:
    fakes.gateway.answer = _tale
    fakes.gateway.chat_error = Unsuitable("this model has no chat template", reason="NO_CHAT_TEMPLATE")
    assert (await whimbrel.run("generate", "curlew", "Once")).out == "A curlew calls.\n"
    told = await whimbrel.run("generate", "curlew", "Once", "--chat")
    assert told.code == 1
    assert "NO_CHAT_TEMPLATE" in told.err


async def test_an_error_says_what_is_wrong_and_what_to_do(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.chat_error = NoRoom("no worker has room", reason="NO_ROOM", retry_after_s=2.5)
    full = await whimbrel.run("generate", "curlew", "Once")
    assert (full.code, full.out) == (1, "")
    assert full.err == "error: no worker has room [NO_ROOM]\n  try again in 2.5 s\n"
    fakes.gateway.chat_error = InvalidRequest.field("top_p", "must be in (0, 1]")
    wrong = await whimbrel.run("generate", "curlew", "Once", "--top-p", "3")
    assert wrong.err == "error: top_p: must be in (0, 1] [INVALID_REQUEST]\n"


async def test_a_lost_worker_is_not_taken_for_a_lost_gateway(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.chat_error = Unreachable("worker-1 was lost", reason="WORKER_LOST", retry_after_s=1.0)
    ended = await whimbrel.run("generate", "curlew", "Once")
    assert "WORKER_LOST" in ended.err
    assert "whimbrel up" not in ended.err


async def test_a_gateway_that_is_not_there_is_said_with_how_to_start_one() -> None:
    ended = await Whimbrel("127.0.0.1:1").run("generate", "curlew", "Once")
    assert ended.code == 1
    assert "no gateway answers at 127.0.0.1:1" in ended.err
    assert "whimbrel up" in ended.err


async def test_a_deadline_that_passes_is_an_error(fakes: Fakes, whimbrel: Whimbrel) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"delta": pb.Delta(text="so far", seq=0)}
        await asyncio.Event().wait()

    fakes.gateway.answer = answer
    ended = await whimbrel.run("generate", "curlew", "Once", "--deadline", "300ms")
    assert (ended.code, ended.out) == (1, "so far\n")
    assert "eadline" in ended.err
