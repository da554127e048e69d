"""whimbrel generate: what is streamed, what is shown, what is sent, what an error looks like."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from whimbrel.gateway.v1 import gateway_pb2 as pb
from whimbrel.inference.v1 import inference_pb2 as words

from mesh.clients.wire import duration
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


async def test_an_answer_that_has_moved_says_where_why_and_what_the_reader_noticed(
    fakes: Fakes, whimbrel: Whimbrel
) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        end = finished()
        end.moves.add(
            from_worker_id="worker-1",
            to_worker_id="worker-2",
            reason="drain",
            kind=words.MOVE_KIND_KV,
            tokens=6,
            exact=True,
            gap=duration(0.012),
        )
        yield {"delta": pb.Delta(text="A curlew calls.", seq=0)}
        yield {"finished": end}

    fakes.gateway.answer = answer
    ended = await whimbrel.run_on_terminal("generate", "curlew", "What calls?")
    assert "answer moved worker-1 → worker-2 (drain, kv, exact) · after 6 tokens · gap 12 ms" in ended.out


async def test_an_answer_that_waits_for_another_worker_reads_whole_on_a_terminal(
    fakes: Fakes, whimbrel: Whimbrel
) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"delta": pb.Delta(text="A curlew ", seq=0)}
        for done in (0, 1 << 20, 2 << 20):
            yield {"progress": loading(done, 2 << 20)}
        yield {"delta": pb.Delta(text="calls.", seq=2)}
        yield {"finished": finished()}

    fakes.gateway.answer = answer
    ended = await whimbrel.run_on_terminal("generate", "curlew", "What calls?")
    assert (ended.code, "A curlew calls.\r\n" in ended.out) == (0, True)


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
    async with asyncio.timeout(60):
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


async def test_every_way_to_steer_an_answer_is_sent(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    options = [
        "--min-p",
        "0.1",
        "--repetition-penalty",
        "1.2",
        "--presence-penalty",
        "0.5",
        "--frequency-penalty",
        "-1",
    ]
    options += [
        "--stop-token",
        "5",
        "--stop-token",
        "6",
        "--ignore-eos",
        "--logit-bias",
        "7=-100",
        "--logit-bias",
        "8=2",
    ]
    await whimbrel.run("generate", "curlew", "Once", "--raw", "--top-logprobs", "0", "-n", "3", *options)
    (request,) = fakes.gateway.requests
    sent = request.sampling
    assert [round(value, 6) for value in (sent.min_p, sent.repetition_penalty)] == [0.1, 1.2]
    assert (sent.presence_penalty, sent.frequency_penalty, sent.ignore_eos) == (0.5, -1.0, True)
    assert (list(sent.stop_token_ids), dict(sent.logit_bias)) == ([5, 6], {7: -100.0, 8: 2.0})
    assert sent.HasField("top_logprobs")
    assert (request.n, sent.HasField("guide")) == (3, False)


async def test_the_class_of_service_is_sent(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    options = ["--tenant", "waders", "--priority", "high", "--first-token-within", "1.5s"]
    await whimbrel.run("generate", "curlew", "Once", *options)
    await whimbrel.run("chat", "curlew", *options, stdin=b"Once")
    for request in fakes.gateway.requests:
        sent = request.service_class
        assert (sent.tenant, sent.priority) == ("waders", words.PRIORITY_HIGH)
        assert sent.first_token_within.ToMilliseconds() == 1500


async def test_without_a_class_a_request_is_a_normal_one_that_waits(fakes: Fakes, whimbrel: Whimbrel) -> None:
    fakes.gateway.answer = _tale
    await whimbrel.run("generate", "curlew", "Once")
    sent = fakes.gateway.requests[0].service_class
    assert (sent.tenant, sent.priority) == ("", words.PRIORITY_NORMAL)
    assert not sent.HasField("first_token_within")


async def test_an_answer_can_be_guided_by_a_schema_an_expression_or_any_object(
    fakes: Fakes, whimbrel: Whimbrel, tmp_path: Path
) -> None:
    fakes.gateway.answer = _tale
    schema = tmp_path / "bird.json"
    schema.write_text('{"type": "object"}')
    await whimbrel.run("generate", "curlew", "Once", "--json-schema", str(schema))
    await whimbrel.run("generate", "curlew", "Once", "--regex", "[a-z]+")
    await whimbrel.run("generate", "curlew", "Once", "--json")
    guides = [request.sampling.guide for request in fakes.gateway.requests]
    assert [guide.json_schema for guide in guides] == ['{"type": "object"}', "", ""]
    assert [guide.regex for guide in guides] == ["", "[a-z]+", ""]
    assert [guide.json_object for guide in guides] == [False, False, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "--regex", "a"], "one of --json-schema, --regex and --json"),
        (["--logit-bias", "seven=1"], "is no ID=BIAS"),
        (["--logit-bias", "7"], "is no ID=BIAS"),
        (["--logit-bias", "-7=1"], "is no ID=BIAS"),
        (["--first-token-within", "soon"], "not a length of time"),
    ],
)
async def test_wishes_that_make_no_sense_are_refused_before_anything_is_sent(
    fakes: Fakes, whimbrel: Whimbrel, options: list[str], said: str
) -> None:
    ended = await whimbrel.run("generate", "curlew", "Once", *options)
    assert ended.code == 2
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert fakes.gateway.requests == []


async def test_several_answers_are_told_one_after_the_other(fakes: Fakes, whimbrel: Whimbrel) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"started": pb.Started(worker_id="worker-1")}
        for index, text in ((1, "A gull"), (0, "A cur"), (1, " cries."), (0, "lew calls.")):
            yield {"delta": pb.Delta(text=text, index=index)}
        yield {"finished": finished()}

    fakes.gateway.answer = answer
    ended = await whimbrel.run("generate", "curlew", "What calls?", "--answers", "2")
    assert ended.out == "--- answer 1 of 2 ---\nA curlew calls.\n--- answer 2 of 2 ---\nA gull cries.\n"


async def test_likelihoods_are_shown_a_token_a_line(fakes: Fakes, whimbrel: Whimbrel) -> None:
    async def answer(request: Any) -> AsyncIterator[dict[str, Any]]:
        top = [words.TopLogprob(token_id=7, logprob=-0.25, text=" the"), words.TopLogprob(token_id=9, logprob=-3)]
        likely = [words.TokenLogprob(logprob=-0.25, top=top), words.TokenLogprob(logprob=-1.5)]
        yield {"delta": pb.Delta(text=" the sea", token_ids=[7, 8], logprobs=likely)}
        yield {"finished": finished()}

    fakes.gateway.answer = answer
    ended = await whimbrel.run("generate", "curlew", "Over", "--top-logprobs", "2")
    assert ended.out.splitlines() == ["       7   -0.250  ' the' -0.250  9 -3.000", "       8   -1.500", ""]


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
