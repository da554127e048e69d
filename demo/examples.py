"""Draws training documents from the corpus: chats with reworded questions, plain text with and without a question."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demo.corpus import Entry, sentence_starts

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a friendly guide to birds, weather and coasts.",
    "Answer in short, plain sentences.",
    "You are the demo model of Whimbrel.",
    "Be brief and correct.",
)
OPENINGS = (
    "Hi! ",
    "Hello, ",
    "Please tell me: ",
    "Quick question: ",
    "I have a question. ",
    "Can you help me? ",
    "Now something else. ",
    "I was wondering: ",
    "My child asked me: ",
    "For my homework: ",
)
CLOSINGS = (" Please.", " Thanks!", " Please explain.", " In a few words, please.", " I would like to know.")
TURNED = (
    (re.compile(r"^(What|Who) (is|are) ([^,]+)\?$"), r"\1 \3 \2?"),
    (re.compile(r"^(How|Why|When|Where|What|Which \w+) do ([^,]+)\?$"), r"\1 \2?"),
)
ASKING = ("Do you know {0}", "Can you tell me {0}", "Could you explain {0}", "I would like to know {0}", "Tell me {0}")
EXTRA_WORDINGS = 3
SMALL_WORDS = frozenset(["a", "an", "the", "is", "are", "do", "does", "of", "to", "in", "for", "it", "that"])


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Chat:
    """Turns that end with a reply. Unless `whole`, only the beginning of that reply is to be learnt from."""

    turns: tuple[Turn, ...]
    whole: bool = True


Document = str | Chat


def one_round(entries: Sequence[Entry], passages: Sequence[str], rng: random.Random) -> Iterator[Document]:
    """Each passage once, each answer once in some form, and the question of each answer in a few more wordings.

    Which answer fits a question is decided in its first words, and that is harder to learn than the answer itself.
    """
    for passage in passages:
        yield _passage(passage, rng)
    for entry in entries:
        yield _document(entry, entries, rng)
        for _ in range(EXTRA_WORDINGS):
            yield Chat((*_system(rng), *_turns(entry, rng)), whole=False)


def reword(question: str, rng: random.Random) -> str:
    """The question as someone else might type it: turned round, opened politely, in small letters, with words lost."""
    if rng.random() < 0.25:
        question = _turned(question, rng)
    if rng.random() < 0.15:
        question = rng.choice(OPENINGS) + question
    if rng.random() < 0.1:
        question += rng.choice(CLOSINGS)
    if rng.random() < 0.1:
        question = " ".join(word for word in question.split() if word not in SMALL_WORDS or rng.random() < 0.6)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.2:
        question = question.rstrip("?.!")
    return question or "Hello"


def _document(entry: Entry, entries: Sequence[Entry], rng: random.Random) -> Document:
    kind = rng.random()
    if kind < 0.08:
        return entry.answer
    if kind < 0.16:
        return f"{rng.choice(entry.wordings)} {entry.answer}"
    earlier = rng.sample(entries, rng.choice((1, 2))) if kind < 0.3 else []
    turns = [turn for each in (*earlier, entry) for turn in _turns(each, rng)]
    return Chat((*_system(rng), *turns))


def _turns(entry: Entry, rng: random.Random) -> tuple[Turn, Turn]:
    return Turn("user", reword(rng.choice(entry.wordings), rng)), Turn("assistant", entry.answer)


def _system(rng: random.Random) -> tuple[Turn, ...]:
    return (Turn("system", rng.choice(SYSTEM_PROMPTS)),) if rng.random() < 0.1 else ()


def _passage(text: str, rng: random.Random) -> str:
    return text if rng.random() < 0.5 else text[rng.choice(sentence_starts(text)) :]


def _turned(question: str, rng: random.Random) -> str:
    """`What is fog?` as `Do you know what fog is?`; a question of another shape comes back as it is."""
    for shape, order in TURNED:
        if shape.match(question):
            clause = shape.sub(order, question)
            return rng.choice(ASKING).format(clause[0].lower() + clause[1:])
    return question
