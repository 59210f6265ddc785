"""Paths to what answers them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.rest.router import Router

ROUTER = Router([("/v2", 0), ("/v2/models/stats", 1), ("/v2/models/{model}", 2), ("/", 3)])
ROUTER_OF_VERSIONS = Router([("/m/{model}/v/{version}", 0)])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v2", (0, {})),
        ("/v2/", (0, {})),
        ("/", (3, {})),
        ("/v2/models/stats", (1, {})),
        ("/v2/models/a", (2, {"model": "a"})),
        ("/v2/models/a%2Fb%20c", (2, {"model": "a/b c"})),
        ("/v2/models/%ff", (2, {"model": "\ufffd"})),
        ("/v2/models/", None),
        ("/v2/models//", None),
        ("/v2/models", None),
        ("/v2/models/a/b", None),
        ("//v2", None),
        ("", None),
        ("v2", None),
    ],
)
def test_where_paths_lead(path, found) -> None:
    assert ROUTER.find(path) == found


@given(st.text())
def test_no_path_breaks_it(path) -> None:
    found = ROUTER.find(path)
    assert found is None or found[0] in range(4)


@given(st.text(min_size=1), st.text(min_size=1))
def test_quoted_names_arrive_as_they_were(model, version) -> None:
    from urllib.parse import quote

    def quoted(text: str) -> str:
        return quote(text.encode("utf-8", "replace"), safe="")

    arrived = {
        "model": model.encode("utf-8", "replace").decode(),
        "version": version.encode("utf-8", "replace").decode(),
    }
    found = ROUTER_OF_VERSIONS.find(f"/m/{quoted(model)}/v/{quoted(version)}")
    assert found == (0, arrived)
