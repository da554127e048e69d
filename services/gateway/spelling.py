"""What token ids spell, one after the other: bytes where the tokenizer has bytes, else text that follows on text."""

import codecs
import itertools
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

TAIL = 4  # tokens: an unfinished character has three at most, and one comes before it
UNFINISHED = "\ufffd"
BYTE_LEVEL, BYTE_FALLBACK = "ByteLevel", "ByteFallback"


class Spelling:
    """One tokenizer's ids. Special tokens spell nothing, nor do ids that it does not know."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        decoders = _decoders(tokenizer)
        self._tokenizer = tokenizer
        self.has_bytes = bool({BYTE_LEVEL, BYTE_FALLBACK} & set(decoders))  # whatever a text is, tokens can spell it
        self._alphabet = _alphabet() if decoders == [BYTE_LEVEL] else {}
        special = (token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special)
        self._spelled: dict[int, bytes | None] = dict(_bytes(tokenizer)) if BYTE_FALLBACK in decoders else {}
        self._spelled |= dict.fromkeys(special, b"")
        self._alone: dict[int, int] = {}  # length of each token's text without any other

    def spelled(self, token: int) -> bytes | None:
        """The token's bytes; b"" if it spells nothing, None if it is text, which depends on what it follows."""
        if token not in self._spelled:
            self._spelled[token] = self._spell(token)
        return self._spelled[token]

    def after(self, last: int | None, token: int) -> str:
        """The text that `token` adds when it follows `last`; None: when it is the first."""
        if last is None:
            return self._text(token)
        if last not in self._alone:
            self._alone[last] = len(self._text(last))
        return self._text(last, token)[self._alone[last] :]

    def alone(self, token: int) -> str:
        """The token by itself, a special one by its name; "" for a part of a character."""
        spelled = self.spelled(token)
        if spelled is None:
            return self.after(token, token)
        text = spelled.decode(errors="replace") if spelled else self._tokenizer.id_to_token(token) or ""
        return "" if UNFINISHED in text else text

    def tail(self, tokens: Sequence[int]) -> list[int]:
        """The last few that spell something."""
        spelling = (token for token in reversed(tokens) if self.spelled(token) != b"")
        return list(itertools.islice(spelling, TAIL))[::-1]

    def _text(self, *tokens: int) -> str:
        return str(self._tokenizer.decode(tokens))

    def _spell(self, token: int) -> bytes | None:
        name = self._tokenizer.id_to_token(token)
        if name is None:
            return b""
        if not self._alphabet:
            return None
        spelled = [self._alphabet.get(character, -1) for character in name]
        return name.encode() if -1 in spelled else bytes(spelled)


class Speller:
    """One answer's text, token by token, as if it were decoded together with its prompt: a character comes whole with
    the token that completes it, also one that the prompt began. Bytes that are no UTF-8 come as U+FFFD."""

    def __init__(self, spelling: Spelling, prompt: Sequence[int] = ()) -> None:
        self._spelling = spelling
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._last: int | None = None  # token that spelled something
        for token in spelling.tail(prompt):
            self.step(token)

    def step(self, token: int) -> str:
        """The text that `token` completes."""
        spelled = self._spelling.spelled(token)
        if spelled == b"":
            return ""
        last, self._last = self._last, token
        return self.finish() + self._spelling.after(last, token) if spelled is None else self._utf8.decode(spelled)

    def finish(self) -> str:
        """U+FFFD if a character is unfinished: nothing comes that completes it."""
        return self._utf8.decode(b"", final=True)


def _decoders(tokenizer: Tokenizer) -> list[str]:
    """Types of the tokenizer's decoders, in order."""
    if tokenizer.decoder is None:
        return []
    state: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    return [one["type"] for one in state.get("decoders", [state])]


def _alphabet() -> dict[str, int]:
    """Byte level: the characters that stand for bytes, as in GPT-2: those that can be seen for themselves."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = (byte for byte in range(256) if byte not in seen)
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(unseen)}


def _bytes(tokenizer: Tokenizer) -> dict[int, bytes]:
    """Byte fallback: the tokens that are one byte each, <0x00> to <0xFF>."""
    tokens = {byte: tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)}
    return {token: bytes([byte]) for byte, token in tokens.items() if token is not None}
