"""The corpus is well formed, and the measuring questions stay out of the training text."""

import random
from pathlib import Path

import pytest

from demo.corpus import CorpusBroken, expand, flow, read_entries, read_passages, sentence_starts
from demo.examples import Chat, one_round, reword


def test_brackets_give_every_reading() -> None:
    assert expand("Do [a|b] fly [far|high]?") == ["Do a fly far?", "Do a fly high?", "Do b fly far?", "Do b fly high?"]


def test_wrapped_lines_join_and_marks_break_them() -> None:
    assert flow(["one", "two", "//", "three /", "four"]) == "one two\n\nthree\nfour"


def test_an_entry_holds_its_wordings_apart_from_those_kept_for_measuring(tmp_path: Path) -> None:
    (tmp_path / "sea.txt").write_text("# comment\n\n= a tide\n? Why [tides]?\n~ What moves the sea?\nThe moon\ndoes.\n")
    (entry,) = read_entries(tmp_path)
    assert {"What is a tide?", "A tide?", "Why tides?"} <= set(entry.wordings)
    assert entry.held_out == ("What moves the sea?",)
    assert (entry.topic, entry.answer) == ("sea", "The moon does.")


@pytest.mark.parametrize("text", ["= a tide\n", "The moon does.\n", "~ What moves the sea?\nThe moon does.\n"])
def test_an_entry_without_a_question_or_an_answer_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "sea.txt").write_text(text)
    with pytest.raises(CorpusBroken, match="sea"):
        read_entries(tmp_path)


def test_no_question_has_two_answers() -> None:
    answer_of: dict[str, str] = {}
    for entry in read_entries():
        for question in (*entry.wordings, *entry.held_out):
            assert answer_of.setdefault(question.lower().rstrip("?.!"), entry.answer) == entry.answer, question


def test_training_never_asks_a_measuring_question() -> None:
    entries = read_entries()
    kept_apart = {question.lower().rstrip("?.!") for entry in entries for question in entry.held_out}
    rng = random.Random(0)
    asked: set[str] = set()
    for _ in range(20):
        chats = [document for document in one_round(entries, read_passages(), rng) if isinstance(document, Chat)]
        asked.update(turn.content.lower().rstrip("?.!") for chat in chats for turn in chat.turns if turn.role == "user")
    assert len(asked) > 4000
    assert not asked & kept_apart


def test_every_answer_and_every_passage_comes_once_a_round() -> None:
    entries, passages = read_entries(), read_passages()
    documents = list(one_round(entries, passages, random.Random(0)))
    texts = [one if isinstance(one, str) else one.turns[-1].content for one in documents]
    for entry in entries:
        assert any(text.endswith(entry.answer) for text in texts)
    assert all(any(passage.endswith(text) for text in texts) for passage in passages)


def test_the_same_seed_draws_the_same_documents() -> None:
    entries, passages = read_entries(), read_passages()
    first, second = (list(one_round(entries, passages, random.Random(7))) for _ in range(2))
    assert first == second


def test_rewording_keeps_the_words_that_matter() -> None:
    rng = random.Random(0)
    wordings = {reword("What is a storm surge?", rng) for _ in range(300)}
    assert len(wordings) > 50
    assert all("storm surge" in wording.lower() for wording in wordings)
    assert any("what a storm surge is" in wording.lower() for wording in wordings)


def test_sentences_begin_after_a_stop_and_a_space() -> None:
    text = 'It rains. "Why?" asked Ada. She knew.'
    assert [text[start:] for start in sentence_starts(text)][-1] == "She knew."
    assert sentence_starts(text)[0] == 0
