"""Every field of an engine's key changes its digest; the order of mappings does not."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.builder.tensorrt.cache_key import EngineKey
from parnet_deploy.builder.tensorrt.job import TensorRtOptions

TEXT = st.text(max_size=8)
JSON = st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.booleans(), st.lists(TEXT)))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "graph_sha256": TEXT,
    "tensorrt": TEXT,
    "device": TEXT,
    "compute_capability": TEXT,
    "driver": TEXT,
    "precision": TEXT,
    "keep_float": st.lists(TEXT).map(tuple),
    "profiles": st.lists(JSON).map(tuple),
    "options": JSON,
    "traits": JSON,
    "schema": st.integers(),
}
KEYS = st.builds(EngineKey, **VALUES)


def test_every_field_has_a_strategy() -> None:
    assert set(VALUES) == {field.name for field in fields(EngineKey)}


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_every_field_changes_the_digest(name: str, data: st.DataObject) -> None:
    key = data.draw(KEYS)
    other = data.draw(VALUES[name].filter(lambda value: value != getattr(key, name)))
    assert replace(key, **{name: other}).digest != key.digest


@given(KEYS)
def test_the_digest_is_of_the_content(key: EngineKey) -> None:
    turned = replace(key, options=dict(reversed(list(key.options.items()))))
    assert turned.digest == replace(turned).digest == key.digest
    assert len(key.digest) == 64


@given(KEYS, KEYS)
def test_two_keys_are_equal_or_differ(a: EngineKey, b: EngineKey) -> None:
    assert (a == b) is (a.digest == b.digest)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimization_level", 4),
        ("aux_streams", 1),
        ("workspace_mib", 64),
        ("hardware_compatibility", "ampere_plus"),
        ("timing_iterations", 2),
        ("tf32", True),
    ],
)
def test_every_option_that_shapes_the_engine_is_in_it(name: str, value: Any) -> None:
    assert TensorRtOptions(**{name: value}).to_json() != TensorRtOptions().to_json()
    names = {field.name for field in fields(TensorRtOptions)}
    assert set(TensorRtOptions().to_json()) == names - {"timeout_s"}
