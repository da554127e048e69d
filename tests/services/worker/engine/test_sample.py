import itertools
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mesh.requests import TokenBias
from services.worker.engine.cuts import NUCLEUS_WIDTH, truncate
from services.worker.engine.noise import gumbel
from services.worker.engine.sample import WIDE, Draw, SamplingParams, sample
from services.worker.engine.shortlist import shortlisted

PROMPT = [3, 1, 4]


def draw(position: int = 3, **params: Any) -> Draw:
    return Draw(SamplingParams(**params), [*PROMPT, *range(position - 3)], 3)


def frequencies(logits: Tensor, count: int = 4000, **params: Any) -> Tensor:
    """How often each token is drawn over `count` seeds."""
    rows = logits.expand(count, -1)
    drawn = sample(rows, [draw(seed=seed, **params) for seed in range(count)])
    return torch.bincount(torch.tensor(drawn), minlength=len(logits)) / count


def test_temperature_zero_is_the_argmax() -> None:
    logits = torch.randn(5, 100)
    assert sample(logits, [draw(temperature=0.0)] * 5) == logits.argmax(-1).tolist()


def test_tokens_are_drawn_as_often_as_the_softmax_says() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits / temperature).softmax(-1)
        assert torch.allclose(frequencies(logits, temperature=temperature), expected, atol=0.03)


def test_positions_draw_independently() -> None:
    logits = torch.zeros(1, 2)
    bits = [sample(logits, [draw(position, seed=7)])[0] for position in range(3, 2003)]
    assert 900 < sum(bits) < 1100
    pairs = sum(a != b for a, b in itertools.pairwise(bits))
    assert 900 < pairs < 1100


def test_noise_is_gumbel_and_a_function_of_seed_position_and_token_only() -> None:
    noise = gumbel([(1, 2), (1, 3), (2, 2)], torch.arange(50_000))
    assert torch.equal(noise[1], gumbel([(1, 3)], torch.arange(50_000))[0])
    assert torch.equal(noise[0, :100], gumbel([(1, 2)], torch.arange(100))[0])
    assert torch.allclose(noise.mean(-1), torch.full((3,), 0.5772), atol=0.02)  # Euler's constant
    assert torch.allclose(noise.std(-1), torch.full((3,), math.pi / 6**0.5), atol=0.03)
    assert torch.corrcoef(noise).triu(1).abs().max() < 0.02
    assert noise.isfinite().all()
    assert torch.equal(noise[0, [7, 49_999]], gumbel([(1, 2)], torch.tensor([7, 49_999]))[0])


CUTS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.5]),
    top_k=st.sampled_from([0, 1, 5, 50, 3000, 20_000]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.001, 0.05, 1.0]),
    seed=st.integers(0, 99),
).filter(lambda params: params.truncates)


@settings(max_examples=150, deadline=None)
@given(CUTS, st.sampled_from([0.0, 0.1, 1.0, 3.0, 8.0]), st.integers(0, 99))
def test_a_wide_rows_shortlist_is_what_the_cuts_leave_of_all(params: SamplingParams, spread: float, seed: int) -> None:
    row = spread * torch.randn(WIDE + 5, generator=torch.Generator().manual_seed(seed))
    row[3::7] = -math.inf  # as a guide does
    whole = (row / params.temperature)[None].clone()
    shortlist = shortlisted(whole[0].clone(), params)
    kept = set(shortlist[whole[0][shortlist] > -math.inf].tolist())
    truncate(whole, [params])
    expected = set((whole[0] > -math.inf).nonzero().flatten().tolist())
    assert len(kept ^ expected) <= 1  # sums of other orders may part over the last one
    assert kept


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_k": 2}, {0, 1, 4}),  # 1 and 4 tie for the second place
        ({"top_k": 1}, {0}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.7}, {0, 1, 4}),
        ({"top_k": 3, "top_p": 0.6}, {0, 1, 4}),
        ({"min_p": 0.3}, {0, 1, 4}),
        ({"min_p": 1.0}, {0}),
        ({"top_p": 0.99, "min_p": 0.1}, {0, 1, 2, 4}),
        ({"top_k": 10_000, "top_p": 1.0}, {0, 1, 2, 3, 4}),
    ],
)
def test_truncation_keeps_exactly(params: dict[str, Any], kept: set[int]) -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])  # softmax .54 .20 .07 .03 .20
    seen = frequencies(logits, 1000, **params)
    assert set(seen.nonzero().flatten().tolist()) == kept


def test_top_p_finds_the_end_of_a_nucleus_wider_than_its_first_look() -> None:
    assert 4 * NUCLEUS_WIDTH < WIDE
    flat = torch.linspace(1.0, 0.0, 4 * NUCLEUS_WIDTH)
    peaked = torch.zeros(4 * NUCLEUS_WIDTH)
    peaked[5] = 20.0
    drawn = sample(torch.stack([flat, peaked]).repeat(500, 1), [draw(seed=s, top_p=0.7) for s in range(1000)])
    nucleus = int((flat.double().softmax(-1).cumsum(-1) < 0.7).sum()) + 1
    assert 2 * NUCLEUS_WIDTH < nucleus < 3 * NUCLEUS_WIDTH
    assert 0.95 * nucleus < max(drawn[::2]) < nucleus
    assert set(drawn[1::2]) == {5}


def test_repetition_penalty_counts_the_prompt_and_the_others_do_not() -> None:
    logits = torch.full((1, 8), 1.0)
    logits[0, [3, 6]] = 2.0
    tokens = [*PROMPT, 6, 6]

    def greedy(**penalty: Any) -> int:
        return sample(logits, [Draw(SamplingParams(temperature=0.0, **penalty), tokens, 3)])[0]

    assert greedy() == 3
    assert greedy(presence_penalty=0.5) == 3
    assert greedy(repetition_penalty=3.0) not in {3, 6}
    logits[0, 3] = 1.5  # 6 leads by 0.5 and was generated twice
    assert (greedy(presence_penalty=0.4), greedy(presence_penalty=0.6)) == (6, 3)
    assert (greedy(frequency_penalty=0.2), greedy(frequency_penalty=0.3)) == (6, 3)
    logits.neg_()  # a negative logit is multiplied, not divided
    assert greedy(repetition_penalty=3.0) in {0, 2, 5, 7}


def test_a_bias_moves_a_token_before_temperature_and_cuts() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.0])
    raised = (TokenBias(3, 2.0),)
    assert sample(logits[None], [draw(temperature=0.0, logit_bias=(TokenBias(3, 3.5),))]) == [3]
    assert sample(logits[None], [draw(temperature=0.0, logit_bias=raised)]) == [0]
    expected = ((logits + torch.tensor([0.0, 0.0, 0.0, 2.0, 0.0])) / 0.5).softmax(-1)
    assert torch.allclose(frequencies(logits, temperature=0.5, logit_bias=raised), expected, atol=0.03)
    assert set(frequencies(logits, 500, top_k=1, logit_bias=(TokenBias(3, 50.0),)).nonzero().flatten().tolist()) == {3}


def test_a_bias_of_minus_100_bans_a_token_however_likely() -> None:
    logits = torch.tensor([400.0, 1.0, 0.0])
    banned = frequencies(logits, 500, temperature=2.0, logit_bias=(TokenBias(0, -100.0),))
    assert banned[0] == 0
    assert sample(logits[None], [draw(temperature=0.0, logit_bias=(TokenBias(0, -100.0), TokenBias(1, -100.0)))]) == [2]


def test_what_a_guide_leaves_out_is_never_drawn() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 1.0]])
    allowed = torch.tensor([False, False, True, True, False])
    for params in (SamplingParams(temperature=0.0), SamplingParams(seed=3), SamplingParams(top_k=1, seed=1)):
        assert sample(logits, [Draw(params, PROMPT, 3, allowed)])[0] in {2, 3}
    assert sample(logits, [Draw(SamplingParams(temperature=0.0), PROMPT, 3, allowed)]) == [2]


PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 1, 5, 50]),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.2]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    logit_bias=st.sampled_from([(), (TokenBias(3, 2.5), TokenBias(39, -100.0))]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(PARAMS, min_size=1, max_size=6), st.sampled_from([40, 3000, 70_000]), st.integers(0, 99))
def test_a_row_depends_on_no_other_row(params: list[SamplingParams], vocabulary: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(len(params), vocabulary, generator=generator)).round(decimals=1)  # with ties
    draws = [Draw(p, PROMPT, 2) for p in params]
    before = logits.clone()
    assert sample(logits, draws) == [sample(logits[i : i + 1], draws[i : i + 1])[0] for i in range(len(params))]
    assert torch.equal(logits, before)


ELSEWHERE = """
import torch
from services.worker.engine.sample import Draw, SamplingParams, sample
logits = torch.linspace(-3.0, 3.0, 40).repeat(20, 1)
draws = [Draw(SamplingParams(seed=seed, top_p=0.9), [3, 1, 4, seed], 3) for seed in range(20)]
print(sample(logits, draws))
"""


def test_another_process_draws_the_same_tokens() -> None:
    elsewhere = subprocess.run([sys.executable, "-c", ELSEWHERE], check=True, capture_output=True, text=True).stdout
    logits = torch.linspace(-3.0, 3.0, 40).repeat(20, 1)
    draws = [Draw(SamplingParams(seed=seed, top_p=0.9), [3, 1, 4, seed], 3) for seed in range(20)]
    assert elsewhere.strip() == str(sample(logits, draws))
    assert len(set(sample(logits, draws))) > 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("seed", -1),
        ("seed", 2**64),
        ("stop_token_ids", (3, -1)),
        ("logit_bias", (TokenBias(3, 0.0), TokenBias(4, 100.5))),
        ("logit_bias", (TokenBias(3, math.nan),)),
        ("top_logprobs", -1),
        ("top_logprobs", 21),
    ],
)
def test_values_that_make_no_sense_are_named(field: str, value: Any) -> None:
    SamplingParams().check()
    with pytest.raises(ValueError, match=field):
        replace(SamplingParams(), **{field: value}).check()
