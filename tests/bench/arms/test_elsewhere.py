from __future__ import annotations

import pytest

from parnet_deploy.bench.arms.elsewhere import make_elsewhere
from parnet_deploy.errors import BackendError, CheckpointError

MODELS = "tests.bench.arms.toy_models"


def test_the_bytes_come_back_and_nothing_that_was_printed(capfd) -> None:
    assert make_elsewhere(f"{MODELS}:make_text", text="a model") == b"a model"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("checkpoint", CheckpointError, "^the checkpoint is gone$"),
        ("build", BackendError, "^cannot join$"),
        ("other", BackendError, "toy_models:make_nothing: .* status 1: ZeroDivisionError: a bug"),
    ],
)
def test_failures_say_why(kind, error, message) -> None:
    with pytest.raises(error, match=message):
        make_elsewhere(f"{MODELS}:make_nothing", kind=kind)
