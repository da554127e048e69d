"""What a checkpoint's files say about text, once they are here."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from mesh.clients.store import StoreClient
from mesh.errors import Unsuitable
from mesh.state.mirror import Mirror
from services.gateway.templates import Conversation, Turn
from services.gateway.texts import Text, Texts
from tests.services.gateway.test_templates import PLAIN, templated, weather
from tests.services.gateway.tiny_tokenizers import END, byte_level, word_piece

USER = (Turn("user", "Hm?"),)


class Files:
    """Directories of checkpoints' files, as a gateway has fetched them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        nobody = cast(Any, None)  # what is in the cache is asked of no store
        self.texts = Texts(cast(StoreClient, nobody), cast(Mirror, nobody), directory, 4, absent_s=0.0)

    def of(self, digest: str, **config: object) -> Path:
        """A checkpoint's directory, with no tokenizer yet."""
        home = self.directory / digest
        home.mkdir()
        (home / "config.json").write_text(json.dumps({"vocab_size": 320, "eos_token_id": 7, **config}))
        (home / "max_context").write_text("512")
        return home

    async def text(self, digest: str) -> Text:
        """What they say."""
        return await self.texts.of(digest)


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Files]:
    """None yet."""
    made = Files(tmp_path)
    with made.texts:
        yield made


async def test_a_tokenizer_and_its_template_are_opened(files: Files) -> None:
    templated(PLAIN).save_pretrained(files.of("d1"))
    text = await files.text("d1")
    assert text.spelling is not None
    assert (text.eos_ids, text.vocabulary, text.max_context) == ((7,), 320, 512)
    assert await text.encode("the sea") == tuple(byte_level().encode("the sea").ids)
    assert await text.render(Conversation(USER)) == f"<user>Hm?{END}<assistant>"
    assert await text.render(Conversation((Turn("user", "Hm?" * 5000),))) == f"<user>{'Hm?' * 5000}{END}<assistant>"
    assert await files.text("d1") is text


async def test_it_is_told_once_when_the_first_tokenizer_is_open(files: Files) -> None:
    told = list[str]()
    files.texts.on_first = lambda: told.append("first")
    files.of("bare")
    await files.text("bare")
    assert told == []
    for digest in ("d1", "d2"):
        templated(PLAIN).save_pretrained(files.of(digest))
        await files.text(digest)
        assert told == ["first"]


async def test_templates_in_files_of_their_own_are_found_by_name(files: Files) -> None:
    home = files.of("d1")
    templated(PLAIN).save_pretrained(home)
    (home / "additional_chat_templates").mkdir()
    (home / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools[0].function.name }}")
    text = await files.text("d1")
    assert await text.render(Conversation(USER)) == f"<user>Hm?{END}<assistant>"
    assert await text.render(Conversation(USER, (weather(),))) == "get_current_weather"


async def test_a_bare_vocabulary_is_a_tokenizer(files: Files) -> None:
    home = files.of("d1", model_type="bert")
    vocabulary = sorted(word_piece().get_vocab().items(), key=lambda item: item[1])
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    (home / "vocab.txt").write_text("\n".join([*(token for token, _ in vocabulary), *special]))
    text = await files.text("d1")
    assert text.tokenizer is not None
    assert text.tokenizer.decode(await text.encode("the sea", special=False)) == "the sea"


async def test_a_model_without_a_tokenizer_says_so(files: Files) -> None:
    files.of("d1")
    text = await files.text("d1")
    assert text.spelling is None
    for asking in (text.encode("a"), text.render(Conversation(USER))):
        with pytest.raises(Unsuitable, match="has no tokenizer; send token_ids") as caught:
            await asking
        assert caught.value.reason == "NO_TOKENIZER"


async def test_a_tokenizer_in_python_alone_is_named(files: Files) -> None:
    home = files.of("d1", model_type="byt5")
    (home / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    with pytest.raises(Unsuitable, match="has a ByT5Tokenizer, in Python only; send token_ids"):
        await (await files.text("d1")).encode("a")


async def test_a_broken_tokenizer_is_an_error_that_names_it(files: Files) -> None:
    home = files.of("d1", model_type="llama")
    (home / "tokenizer.json").write_text("{")
    with pytest.raises(Unsuitable, match="cannot be opened") as caught:
        await files.text("d1")
    assert caught.value.reason == "BAD_TOKENIZER"
