"""Sealed JSON: one rendering, and everything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.storage.document import canonical, plain, seal, unseal

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    # not infinite: JSON has no spelling for it
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(content=st.dictionaries(st.text().filter(lambda k: k != "sha256"), values))
def test_round_trip_of_any_content(content: dict[str, Any]) -> None:
    content["schema_version"] = 1
    raw = seal(content)
    data = unseal(raw, "here", schema_version=1)
    assert len(data.pop("sha256")) == 64
    assert data == content
    assert raw == seal(dict(reversed(content.items())))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "cannot read it"),
        (b"\xff", "cannot read it"),
        (b"[" * 100_000, "cannot read it"),
        (b"[]", "got a JSON list, expected an object"),
        (b'{"a": 1, "a": 2}', "got the key 'a' twice"),
        (b'{"a": {"b": 1, "b": 1}}', "got the key 'b' twice"),
        (b'{"a": NaN}', "got the constant NaN"),
        (b'{"a": Infinity}', "got the constant Infinity"),
        (b'{"schema_version": 1}', "does not match its sha256"),
        (b'{"schema_version": 1, "a": 1e999}', "does not match its sha256"),
        (b'{"schema_version": 1, "sha256": 3}', "does not match its sha256"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_was_not_sealed_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(DeploymentCorruptError) as caught:
        unseal(raw, "manifest x", schema_version=1)
    assert str(caught.value).startswith("manifest x: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("pair", [(b"\n", b"\r\n"), (b"\n ", b"\n\t"), (b'"a"', b'"\\u0061"')])
def test_other_spelling_of_the_same_content_is_refused(pair: tuple[bytes, bytes]) -> None:
    raw = seal({"schema_version": 1, "a": 1})
    with pytest.raises(DeploymentCorruptError):
        unseal(raw.replace(*pair), "x", schema_version=1)


def test_version_is_looked_at_before_the_seal() -> None:
    """A later release may seal in another way; its files are not called damaged."""
    with pytest.raises(DeploymentError, match="got schema version 2, expected 1") as caught:
        unseal(b'{"schema_version": 2, "seal": "another"}', "x", schema_version=1)
    assert not isinstance(caught.value, DeploymentCorruptError)


def test_canonical_is_compact_and_sorted() -> None:
    assert canonical({"b": (1, 2.5), "a": "é"}) == b'{"a":"\\u00e9","b":[1,2.5]}'
    assert plain({"a": (1, [2])}) == {"a": [1, [2]]}
