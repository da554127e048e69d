"""What the clients ask, all of it drawn from a seed. Who asks is in crowd.py."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from mesh.clients.gateway_records import SamplingWishes
from mesh.requests import Guide, GuideKind


class Sort(StrEnum):
    """What is special about a question."""

    GREEDY = "greedy"
    SEEDED = "seeded"
    DRAWN = "drawn"  # without a seed: the request's id gives it one
    PENALTIES = "penalties"
    STOP = "stop text"
    GUIDED = "guided"
    SEVERAL = "several"  # more than one answer
    LIKELY = "logprobs"
    LEAVING = "leaving"  # the client goes before the end


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and after how many tokens its client leaves (None: it stays)."""

    request_id: str
    sort: Sort
    model: str
    prompt: str
    wishes: SamplingWishes
    answers: int = 1
    leaves_after: int | None = None

    @property
    def same(self) -> "Question":
        """What every question has that must get the same answer."""
        request_id = self.request_id if self.sort is Sort.DRAWN else ""
        return replace(self, request_id=request_id, sort=Sort.GREEDY, leaves_after=None)


SHORT, MIDDLE, LONG = (1, 12), (20, 80), (150, 400)  # tokens
LENGTHS = {SHORT: 3, MIDDLE: 5, LONG: 2}  # of ten, how many have which
SUBJECTS = ("The tide", "A whimbrel", "The harbour", "In winter", "Two curlews", "The wind", "At dawn", "The flock")
VERBS = ("is", "was", "comes", "goes", "turns", "waits")
LOREM = "the birds of the coast rest where the water leaves the sand and the sand keeps the heat of the day "
STOPS = (("the sea", "ing t"), ("mud", " and the"), ("winter", "ore"), ("xq",))
NOTE = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 60}, "legs": {"type": "integer", "minimum": 0}},
    "required": ["name", "legs"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
GUIDES = (Guide(GuideKind.JSON_SCHEMA, json.dumps(NOTE)), Guide(GuideKind.REGEX, "([a-z]{2,9} ){12,60}end"))


def questions(seed: int, count: int, models: Sequence[str]) -> tuple[Question, ...]:
    """`count` of them, always the same ones of a seed."""
    chance = random.Random(f"questions {seed}")
    sorts = list(Sort)
    return tuple(_question(chance, f"chaos-{seed}-{number}", chance.choice(sorts), models) for number in range(count))


def _question(chance: random.Random, request_id: str, sort: Sort, models: Sequence[str]) -> Question:
    prompt = f"{chance.choice(SUBJECTS)} {chance.choice(VERBS)}"
    if chance.random() < 0.2:
        prompt = LOREM * chance.randint(3, 12) + prompt
    wishes = _wishes(chance, sort, chance.randint(*_length(chance)))
    return Question(
        request_id,
        sort,
        chance.choice(models),
        prompt,
        wishes,
        answers=chance.randint(2, 4) if sort is Sort.SEVERAL else 1,
        leaves_after=chance.randint(1, wishes.max_tokens or 1) if sort is Sort.LEAVING else None,
    )


def _length(chance: random.Random) -> tuple[int, int]:
    (length,) = chance.choices(list(LENGTHS), list(LENGTHS.values()))
    return length


def _wishes(chance: random.Random, sort: Sort, tokens: int) -> SamplingWishes:
    seeded = SamplingWishes(temperature=0.9, seed=chance.randrange(1 << 32), max_tokens=tokens, ignore_eos=True)
    made = {
        Sort.GREEDY: replace(seeded, temperature=0.0, seed=None),
        Sort.DRAWN: replace(seeded, seed=None),
        Sort.PENALTIES: replace(
            seeded, repetition_penalty=1.2, presence_penalty=0.4, frequency_penalty=0.3, top_p=0.95
        ),
        Sort.STOP: replace(seeded, max_tokens=max(tokens, MIDDLE[1]), stop=chance.choice(STOPS)),
        Sort.GUIDED: replace(seeded, max_tokens=LONG[1], guide=chance.choice(GUIDES), ignore_eos=False),
        Sort.SEVERAL: replace(seeded, max_tokens=min(tokens, MIDDLE[1])),
        Sort.LIKELY: replace(seeded, top_logprobs=3, top_k=50),
    }
    return made.get(sort, seeded)
