from __future__ import annotations

import numpy as np
import pytest
import torch

from parnet_deploy.errors import BackendError, DeviceUnavailableError
from parnet_deploy.export.baselines import compiled_arm, torch_arm
from tests.networks import SPEC, random_network

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def test_the_training_form_is_what_runs() -> None:
    model = random_network(SPEC).eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy(IMAGE)).numpy()
    arm = torch_arm(model, threads=1)
    assert np.array_equal(arm.run(IMAGE), expected)
    assert arm.note.startswith("training form, eager, 1 threads, torch ")


def test_a_gpu_that_is_not_there_is_no_cpu() -> None:
    gpu = torch.cuda.device_count()
    with pytest.raises(DeviceUnavailableError, match=f"expected GPU {gpu}"):
        torch_arm(random_network(SPEC).eval(), gpu=gpu)


def test_it_is_compiled_before_the_first_call(monkeypatch) -> None:
    calls = []

    def compile_it(model):
        return lambda image: calls.append(image.shape) or model(image)

    monkeypatch.setattr(torch, "compile", compile_it)
    model = random_network(SPEC).eval()
    arm = compiled_arm(model, IMAGE, threads=1)
    assert calls == [IMAGE.shape]
    assert arm.load_ms is not None
    assert np.array_equal(arm.run(IMAGE), torch_arm(model, threads=1).run(IMAGE))


def test_a_compiler_that_fails_is_named(monkeypatch) -> None:
    def failing(image):
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", lambda model: failing)
    expected = "RuntimeError: No working C.. compiler found. On the CPU it needs a C"
    with pytest.raises(BackendError, match=expected):
        compiled_arm(random_network(SPEC).eval(), IMAGE)
