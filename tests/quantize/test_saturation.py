"""Kernels that overflow silently are found by the gates; weights of 7 bits are safe from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from parnet_deploy.errors import CheckFailedError
from parnet_deploy.quantize import qdq_cpu, quantize_step
from parnet_deploy.quantize.chain import ChainOptions, PartChain
from parnet_deploy.quantize.evaluate import measure, reference_logits
from parnet_deploy.quantize.gates import Gates, check_gates, require
from parnet_deploy.quantize.metrics import sqnr_db
from parnet_deploy.quantize.options import QuantizeOptions
from parnet_deploy.quantize.qdq_cpu import WEIGHT_LIMIT, WEIGHT_LIMIT_PAIRS, quantize_for_cpu
from parnet_deploy.quantize.quantize_step import quantize_to_deployment
from tests.quantize.saturating import saturating_logits

IMAGES = 48


def lower(digits, limit):
    ranges = digits.calibration.table.tensors
    return {k: quantize_for_cpu(m, ranges, limit=limit) for k, m in digits.graphs.items()}


def measured(digits, limit):
    """The clean set on the processor without VNNI, and the emulation beside it."""
    clean = digits.data.sets["clean"]
    picked = clean.spread(IMAGES)
    few = replace(clean, images=clean.images[picked], classes=clean.classes[picked])
    sets = {"clean": few}
    graphs = lower(digits, limit)
    exact = PartChain(digits.spec, graphs, ChainOptions(emulate=True))
    return measure(
        sets,
        reference_logits(digits.full.logits, sets),
        emulated=exact.logits,
        kernel=lambda images: saturating_logits(digits.spec, graphs, images),
        clipped=0.0,
    )


def test_the_model_of_the_processor_is_right_where_nothing_can_overflow(digits) -> None:
    graphs = lower(digits, WEIGHT_LIMIT_PAIRS)
    images = digits.data.sets["clean"].images[:8]
    exact = PartChain(digits.spec, graphs, ChainOptions(emulate=True)).logits(images)
    assert sqnr_db(saturating_logits(digits.spec, graphs, images), exact) > 30


@pytest.fixture
def with_first_layer(monkeypatch) -> None:
    """Deliberately: the first layer in 8 bits too, whose three channels are equal and large."""
    monkeypatch.setattr(qdq_cpu, "IMAGE", "no tensor of this name")


@pytest.mark.usefixtures("with_first_layer")
def test_a_saturating_configuration_is_refused_though_every_answer_may_be_right(digits) -> None:
    found = measured(digits, WEIGHT_LIMIT)
    assert found.emulated["clean"].sqnr_db > 25  # the graph is fine, its kernels are not
    checks = check_gates(found, Gates())
    failed = [check.name for check in checks if not check]
    assert "clean SQNR lost by the kernels (saturation)" in failed
    assert "clean logit SQNR" in failed
    assert "clean accuracy drop" not in failed
    with pytest.raises(CheckFailedError, match=r"SQNR lost by the kernels \(saturation\): got"):
        require(checks, "precision int8-cpu")


@pytest.mark.usefixtures("with_first_layer")
def test_weights_of_7_bits_pass_on_the_same_processor(digits) -> None:
    checks = check_gates(measured(digits, WEIGHT_LIMIT_PAIRS), Gates())
    assert [str(check) for check in checks if not check] == []


@pytest.mark.parametrize("limit", [WEIGHT_LIMIT, WEIGHT_LIMIT_PAIRS])
def test_without_the_first_layer_hardly_anything_saturates(digits, limit) -> None:
    found = measured(digits, limit)
    assert abs(found.gap["clean"].lost_db) < 1
    assert [str(check) for check in check_gates(found, Gates()) if not check] == []


def test_a_saturating_configuration_is_not_published(digits, exported, monkeypatch) -> None:
    before = {p: p.read_bytes() for p in exported.rglob("*") if p.is_file()}
    honest = quantize_step.PartChain

    class WithoutVnni(honest):
        """What ``PartChain`` would be on such a processor."""

        def logits(self, images, on_batch=None):
            exact = super().logits(images)
            lowered = any("quantized" in name for name in self.weights)
            return exact + np.float32(0.3) * np.abs(exact).max() if lowered else exact

        def __init__(self, spec, graphs, options=None):
            super().__init__(spec, graphs, options)
            emulated = options is not None and options.emulate
            models = () if emulated else graphs.values()
            self.weights = {w.name for model in models for w in model.graph.initializer}

    monkeypatch.setattr(quantize_step, "PartChain", WithoutVnni)
    with pytest.raises(CheckFailedError, match="saturation"):
        quantize_to_deployment(
            exported,
            digits.data.sets,
            QuantizeOptions(target="int8-cpu", search=False),
            calibration=digits.calibration,
        )
    after = {p: p.read_bytes() for p in exported.rglob("*") if p.is_file()}
    assert {p: data for p, data in after.items() if not p.name.startswith(".")} == {
        p: data for p, data in before.items() if not p.name.startswith(".")
    }
