"""A few lines of each format, as it is documented, and what is read from them; and lines that are none."""

import gzip
import json
from pathlib import Path

import pytest

from sim.arrivals import Law
from sim.traces import servegen
from sim.traces.formats import FORMATS
from sim.traces.row import BadTrace, Row, Window

WHOLE = Window(0.0, 1e9)


def rows(name: str, path: Path, window: Window = WHOLE) -> list[Row]:
    return list(FORMATS[name](path, window, 0))


def wrote(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def day(*functions: tuple[str, dict[int, int]]) -> list[str]:
    header = ",".join(["HashOwner", "HashApp", "HashFunction", "Trigger", *map(str, range(1, 1441))])
    counts = [",".join([f"o,app,{name},http", *(str(c.get(m, 0)) for m in range(1, 1441))]) for name, c in functions]
    return [header, *counts]


def test_azure_functions_2019_has_counts_by_minute_and_a_file_by_day(tmp_path: Path) -> None:
    wrote(tmp_path / "invocations_per_function_md.anon.d01.csv", *day(("f", {1: 3, 1440: 1}), ("g", {2: 5})))
    wrote(tmp_path / "invocations_per_function_md.anon.d02.csv", *day(("f", {1: 7})))
    found = [(row.at_s, row.key, row.span_s, row.count, row.tenant) for row in rows("azure-functions-2019", tmp_path)]
    assert found == [
        (0.0, "app/f", 60.0, 3, "o"),
        (86340.0, "app/f", 60.0, 1, "o"),
        (60.0, "app/g", 60.0, 5, "o"),
        (86400.0, "app/f", 60.0, 7, "o"),
    ]
    second = rows("azure-functions-2019", tmp_path, Window(86400.0, 60.0))
    assert [row.count for row in second] == [7]
    one_day = rows("azure-functions-2019", tmp_path / "invocations_per_function_md.anon.d02.csv")
    assert [row.at_s for row in one_day] == [0.0]


def test_a_call_of_azure_functions_2021_came_when_it_ended_less_its_duration(tmp_path: Path) -> None:
    path = wrote(tmp_path / "t.txt", "app,func,end_timestamp,duration", "a,f,5160.25,0.25", "a,g,5161.5,101.5")
    assert rows("azure-functions-2021", path) == [Row(5160.0, "a/f", tenant="a"), Row(5060.0, "a/g", tenant="a")]
    assert [row.key for row in rows("azure-functions-2021", path, Window(5100.0, 100.0))] == ["a/f"]


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("azure-llm-2023", ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:05.2299600")),
        ("azure-llm-2024", ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:01.259930+00:00")),
    ],
)
def test_azure_llm_begins_with_its_first_request(tmp_path: Path, name: str, moments: tuple[str, str]) -> None:
    table = ["TIMESTAMP,ContextTokens,GeneratedTokens", f"{moments[0]},4808,10", f"{moments[1]},3180,8"]
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("\n".join(table))
    assert rows(name, tmp_path / "t.csv.gz") == [
        Row(0.0, prompt_tokens=4808, answer_tokens=10),
        Row(pytest.approx(1.25), prompt_tokens=3180, answer_tokens=8),  # type: ignore[arg-type]
    ]


def test_burstgpt_has_two_models_and_two_uses_and_its_failures_are_left_out(tmp_path: Path) -> None:
    path = wrote(
        tmp_path / "b.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "19440110.0,s-1,43,GPT-4,906,446,1352,Conversation log",
        "19440161.0,s-2,2,ChatGPT,36,0,36,Conversation log",
        "19440192.0,,2,ChatGPT,36,29,65,API log",
    )
    assert rows("burstgpt", path) == [
        Row(0.0, "GPT-4/Conversation log", prompt_tokens=906, answer_tokens=446, session="s-1"),
        Row(82.0, "ChatGPT/API log", prompt_tokens=36, answer_tokens=29),
    ]
    old = wrote(
        tmp_path / "old.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "5,ChatGPT,472,18,490,Conversation log",
    )
    assert rows("burstgpt", old) == [Row(0.0, "ChatGPT/Conversation log", prompt_tokens=472, answer_tokens=18)]


def test_mooncake_has_blocks_and_steps_of_three_seconds(tmp_path: Path) -> None:
    path = wrote(
        tmp_path / "m.jsonl",
        '{"timestamp": 0, "input_length": 915, "output_length": 355, "hash_ids": [0, 462]}',
        '{"timestamp": 3000, "input_length": 600, "output_length": 3, "hash_ids": [0, 463]}',
    )
    assert rows("mooncake", path) == [
        Row(0.0, span_s=3.0, prompt_tokens=915, answer_tokens=355, blocks=(0, 462)),
        Row(3.0, span_s=3.0, prompt_tokens=600, answer_tokens=3, blocks=(0, 463)),
    ]


def test_servegen_draws_what_each_client_does_in_each_window(tmp_path: Path) -> None:
    wrote(tmp_path / "chunk-0-trace.csv", "0,2.0,1.0,Gamma,1.0,0.5", "600,0,0,,0,0", "1200,0.5,2.0,Weibull,0.54,1.1")
    wrote(tmp_path / "chunk-7-trace.csv", "0,0,0,,0,0", "600,0,0,,0,0", "1200,0,0,,0,0")
    early = {"input_tokens": "{100: 0.5, 200: 0.5}", "output_tokens": "{7: 1.0}"}
    late = {"input_tokens": "{900: 1.0}", "output_tokens": "{8: 1.0}"}
    empty = {"input_tokens": "{}", "output_tokens": "{}"}
    for client in (0, 7):
        (tmp_path / f"chunk-{client}-dataset.json").write_text(json.dumps({"0": early, "600": empty, "1200": late}))
    found = rows("servegen", tmp_path)
    first, last = [row for row in found if row.at_s < 600.0], [row for row in found if row.at_s >= 1200.0]
    assert len(first) + len(last) == len(found)
    assert len(first) == pytest.approx(2.0 * 600.0, rel=0.15)
    assert {row.prompt_tokens for row in first} == {100, 200}
    assert {(row.key, row.prompt_tokens, row.answer_tokens) for row in last} == {("0", 900, 8)}
    assert found == rows("servegen", tmp_path)
    assert {law.value for law in Law} == {"gamma", "weibull"}
    assert found != list(servegen.rows(tmp_path, WHOLE, 1))


def test_chutes_has_a_model_a_user_and_two_ways_to_write_time(tmp_path: Path) -> None:
    path = wrote(
        tmp_path / "c.csv",
        "invocation_id,function_name,chute_id,user_id,rehash_round,instance_id,started_at,completed_at,it,ot,ct,ttft",
        "1,chat,m1,u1,0,i1,12.5,14.0,100,20,0,0.5",
        "2,chat,m2,u1,1,i1,1 day 01:00:02.5,2 days 01:00:03,200,30,0,0.5",
        "3,draw,m3,u2,1,i1,00:00:03,00:00:04,,,,",
    )
    assert rows("chutes", path) == [
        Row(12.5, "m1", prompt_tokens=100, answer_tokens=20, tenant="u1/0"),
        Row(90002.5, "m2", prompt_tokens=200, answer_tokens=30, tenant="u1/1"),
    ]
    with pytest.raises(BadTrace, match="export"):
        rows("chutes", tmp_path / "chutes_trace.parquet")


BAD = [
    ("azure-functions-2021", ["app,func,end_timestamp"], "line 1: no column is called 'duration'"),
    ("azure-functions-2021", ["app,func,end_timestamp,duration", "a,f,1.0,1.0", "a,f,soon,1"], "line 3: .*'soon'"),
    ("azure-functions-2021", ["app,func,end_timestamp,duration", "a,f,1.0"], "line 2: the line ends before"),
    ("azure-llm-2023", ["TIMESTAMP,ContextTokens,GeneratedTokens", "noon,1,1"], "line 2: .*no moment, but 'noon'"),
    ("azure-llm-2023", ["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:17:03,-5,1"], "line 2: .*no count"),
    ("burstgpt", ["Timestamp,Model,Request tokens,Response tokens,Log Type", "1,m,x,1,l"], "line 2: .*'x'"),
    ("mooncake", ['{"timestamp": 0, "input_length": 1, "output_length": 1}'], "line 1: .*hash_ids"),
    ("mooncake", ["{"], "line 1"),
    ("chutes", ["chute_id,user_id,rehash_round,started_at,it,ot", "m,u,0,later,1,1"], "line 2: .*'later'"),
]


@pytest.mark.parametrize(("name", "lines", "complaint"), BAD)
def test_what_is_not_of_the_format_is_told_with_file_and_line(
    tmp_path: Path, name: str, lines: list[str], complaint: str
) -> None:
    path = wrote(tmp_path / "bad", *lines)
    with pytest.raises(BadTrace, match=complaint) as told:
        rows(name, path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadTrace, match="nowhere"):
        rows(name, tmp_path / "nowhere")


def test_a_client_of_servegen_without_laws_or_lengths_is_told(tmp_path: Path) -> None:
    wrote(tmp_path / "chunk-0-trace.csv", "0,2.0,1.0,Poisson,1.0,0.5")
    with pytest.raises(BadTrace, match="cannot be read"):
        rows("servegen", tmp_path)
    (tmp_path / "chunk-0-dataset.json").write_text('{"0": {"input_tokens": "{1: 1.0}"}}')
    with pytest.raises(BadTrace, match="line 1: gaps are of Gamma or Weibull, not of 'Poisson'"):
        rows("servegen", tmp_path)
    wrote(tmp_path / "chunk-0-trace.csv", "0,2.0,1.0,Gamma,1.0,0.5")
    with pytest.raises(BadTrace, match="output_tokens"):
        rows("servegen", tmp_path)
