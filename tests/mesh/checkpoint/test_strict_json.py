"""JSON from strangers is read by its letter."""

import pytest

from mesh.checkpoint import strict_json


def test_plain_json_is_read() -> None:
    assert strict_json.loads(b'{"a": [1, 2.5, null, "\\u00e9"]}') == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' appears twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"[" * 100_000, "nested too deep"),
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer string conversion"),
    ],
)
def test_what_readers_disagree_about_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        strict_json.loads(data)
