"""The steps fuse and export on a deployment: what is published, skipped, redone, refused."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.errors import (
    AlreadyFusedError,
    CheckFailedError,
    CheckpointError,
    DeploymentChangedError,
    DeploymentError,
    DeploymentNotFoundError,
    SpecError,
    UnsafeCheckpointError,
)
from parnet_deploy.export import export_step, fuse, fuse_step, to_onnx, trained
from parnet_deploy.export.export_step import EXPORT_REPORT, export_to_deployment
from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.fuse_step import (
    FUSE_REPORT,
    FUSED,
    FuseOptions,
    fuse_to_deployment,
    load_fused,
)
from parnet_deploy.export.model import ParNet
from parnet_deploy.export.trained import trained_preprocessing, training_form
from parnet_deploy.input_size import InputSize
from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.reference import REFERENCE, Reference
from parnet_deploy.steps import read_report
from tests.networks import SPEC, SPECS, State, random_state, write_release, write_state

SMALL = Preprocessing(height=32, width=64)
LABELS = ("zero", "one", "two", "three", "four")
OPTIONS = FuseOptions(preprocessing=SMALL, labels=LABELS)
PARTS = {f"onnx/{part.name}.onnx" for part in SPEC.parts}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``model.pth.tar`` and its exported deployment ``engine``."""
    home = tmp_path_factory.mktemp("steps")
    write_release(
        home / "model.pth.tar", random_state(SPEC), state_dict_ema=random_state(SPEC, seed=1)
    )
    fuse_to_deployment(home / "model.pth.tar", home / "engine", OPTIONS)
    export_to_deployment(home / "engine")
    return home


@pytest.fixture
def model(made: Path) -> Path:
    """The checkpoint that ``made`` was made from, at the path that it was made from."""
    return made / "model.pth.tar"


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy of the exported deployment, for the test to change."""
    return Path(shutil.copytree(made / "engine", tmp_path / "engine"))


def content(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes, but for the lock."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


class TestFuse:
    def test_publishes_weights_report_and_description(self, model: Path, tmp_path: Path) -> None:
        blocks: list[str] = []
        result = fuse_to_deployment(model, tmp_path / "engine", OPTIONS, on_block=blocks.append)
        assert blocks == [block.name for block in SPEC.blocks]
        assert not result.skipped
        found = Deployment.open(tmp_path / "engine")
        assert found.verify() == Deployment.open(tmp_path / "engine").verify()
        assert bool(found.verify())
        assert set(found.artifacts) == {FUSED, FUSE_REPORT}
        assert (found.spec, found.labels, found.input_size) == (SPEC, LABELS, None)
        assert found.preprocessing == SMALL.to_json()
        assert found.source["path"] == str(model)
        assert (found.source["layout"], found.source["weights"]) == ("release", "ema")
        assert found.source["activation"]["activation"] == "silu"
        assert found.source["training_args"]["lr"] == 0.1
        expected = fuse_network(random_state(SPEC, seed=1), SPEC).tensors
        got = load_fused(found).tensors
        assert got.keys() == expected.keys()
        assert all(torch.equal(expected[name], tensor) for name, tensor in got.items())

    def test_report(self, made: Path) -> None:
        report = read_report(made / "engine", FUSE_REPORT)
        assert report["proof"]["float64"]["passed"]
        assert report["proof"]["float32"]["passed"]
        assert len(report["proof"]["blocks"]) == len(SPEC.blocks)
        assert report["totals"]["after"]["batch_norms"] == 0
        assert report["totals"]["before"]["batch_norms"] == len(report["batch_norms"])
        assert report["preprocessing"] == {**SMALL.to_json(), "origin": "given"}
        assert report["source"]["notes"]
        names = {entry["name"] for entry in report["weights"]}
        assert "head.fc.weight" in names

    def test_parameters_are_those_of_the_training_form(self, made: Path) -> None:
        with torch.device("meta"):
            count = sum(p.numel() for p in ParNet(SPEC).parameters())
        assert Deployment.open(made / "engine").source["parameters"] == count

    def test_unchanged_is_skipped(
        self, model: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = content(engine)

        def never(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("loaded")

        monkeypatch.setattr(fuse_step, "load_checkpoint", never)
        result = fuse_to_deployment(model, engine, OPTIONS)
        assert result.skipped
        assert result.report == read_report(engine, FUSE_REPORT)
        assert content(engine) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"weights": "model"},
            {"activation": "silu"},
            {"preprocessing": dataclasses.replace(SMALL, crop_fraction=1.0)},
            {"labels": None},
            {"labels": LABELS[::-1]},
        ],
        ids=str,
    )
    def test_a_changed_option_fuses_again_and_drops_what_was_made_from_it(
        self, model: Path, engine: Path, change: dict[str, Any]
    ) -> None:
        options = dataclasses.replace(OPTIONS, **change)
        assert not fuse_to_deployment(model, engine, options).skipped
        found = Deployment.open(engine)
        assert set(found.artifacts) == {FUSED, FUSE_REPORT}
        assert set(found.steps) == {"fuse"}
        assert found.input_size is None
        assert not list(engine.rglob("*.onnx"))
        assert found.labels == options.labels
        assert fuse_to_deployment(model, engine, options).skipped

    def test_other_weights_fuse_again(self, model: Path, engine: Path, tmp_path: Path) -> None:
        other = write_release(tmp_path / "other.pth.tar", random_state(SPEC, seed=2))
        old = Deployment.open(engine).read_bytes(FUSED)
        assert not fuse_to_deployment(other, engine, OPTIONS).skipped
        found = Deployment.open(engine)
        assert found.read_bytes(FUSED) != old
        assert set(found.artifacts) == {FUSED, FUSE_REPORT}

    def test_a_damaged_artifact_is_made_again(self, model: Path, engine: Path) -> None:
        good = (engine / FUSED).read_bytes()
        (engine / FUSED).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert not fuse_to_deployment(model, engine, OPTIONS).skipped
        assert (engine / FUSED).read_bytes() == good

    def test_the_source_is_only_read(self, model: Path, tmp_path: Path) -> None:
        before = (model.read_bytes(), model.stat().st_mtime_ns)
        fuse_to_deployment(model, tmp_path / "engine", OPTIONS)
        assert (model.read_bytes(), model.stat().st_mtime_ns) == before

    def test_pruned_channels_can_be_fused(self, tmp_path: Path) -> None:
        """Most gammas zero: their weights are zero, and the report must bear it."""
        state = {
            name: torch.zeros_like(t) if ".bn.weight" in name else t
            for name, t in random_state(SPEC).items()
        }
        path = write_state(tmp_path / "m.pth", state)
        report = fuse_to_deployment(path, tmp_path / "engine", OPTIONS).report
        figures = {entry["name"]: entry for entry in report["weights"]}
        assert figures["streams.0.0.conv.weight"]["max_abs"] == 0


def bad_labels(home: Path) -> tuple[Path, FuseOptions]:
    return home / "model.pth.tar", dataclasses.replace(OPTIONS, labels=LABELS[:4])


def bad_size(home: Path) -> tuple[Path, FuseOptions]:
    wrong = Preprocessing(height=48, width=48)
    return home / "model.pth.tar", dataclasses.replace(OPTIONS, preprocessing=wrong)


def no_file(home: Path) -> tuple[Path, FuseOptions]:
    return home / "none.pth", OPTIONS


def hostile(home: Path) -> tuple[Path, FuseOptions]:
    path = home / "hostile.pth"
    path.write_bytes(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.")
    return path, OPTIONS


def not_finite(home: Path) -> tuple[Path, FuseOptions]:
    state = {**random_state(SPEC), "head.fc.bias": torch.full((5,), math.nan)}
    return write_state(home / "nan.pth", state), OPTIONS


def fused_already(home: Path) -> tuple[Path, FuseOptions]:
    return home / "engine" / FUSED, OPTIONS


def overflowing(home: Path) -> tuple[Path, FuseOptions]:
    """Finite weights, but their product is not: found by the gate, not by a traceback."""
    state = random_state(SPEC)
    state["combine.3.block.rbr_dense.conv.weight"] *= 1e30
    state["combine.3.block.rbr_dense.bn.weight"] *= 1e30
    return write_state(home / "overflow.pth", state), OPTIONS


REFUSED: list[tuple[Callable[[Path], tuple[Path, FuseOptions]], type[Exception], str]] = [
    (bad_labels, SpecError, "labels: got 4, expected 5, one for each class."),
    (bad_size, SpecError, "input size: got 48x48, expected multiples of 32"),
    (no_file, CheckpointError, "got no such file"),
    (hostile, UnsafeCheckpointError, "asks for eval;"),
    (not_finite, CheckpointError, "head.fc.bias: 5 of 5 values are NaN or Inf"),
    (fused_already, AlreadyFusedError, "fused already: got "),
    (overflowing, CheckFailedError, "parity: block combine.3, float32: NaN or Inf in the output."),
]


def test_image_options_change_what_the_checkpoint_says(made: Path, tmp_path: Path) -> None:
    """One value each, beside the checkpoint's own; another value fuses again."""
    for crop in (1.0, 0.5):
        options = dataclasses.replace(OPTIONS, image_options={"crop_fraction": crop})
        result = fuse_to_deployment(made / "model.pth.tar", tmp_path / "engine", options)
        assert not result.skipped
        assert result.report["preprocessing"]["origin"] == "given; crop_fraction given"
        expected = dataclasses.replace(SMALL, crop_fraction=crop).to_json()
        assert Deployment.open(tmp_path / "engine").preprocessing == expected


class TestNothingIsLost:
    @pytest.mark.parametrize(("make", "kind", "message"), REFUSED)
    def test_a_refused_checkpoint_leaves_the_deployment(
        self,
        made: Path,
        engine: Path,
        tmp_path: Path,
        make: Callable[[Path], tuple[Path, FuseOptions]],
        kind: type[Exception],
        message: str,
    ) -> None:
        home = Path(shutil.copytree(made, tmp_path / "home"))
        checkpoint, options = make(home)
        before = content(engine)
        with pytest.raises(kind) as caught:
            fuse_to_deployment(checkpoint, engine, options)
        assert type(caught.value) is kind
        assert message in str(caught.value)
        assert content(engine) == before
        with pytest.raises(kind):
            fuse_to_deployment(checkpoint, tmp_path / "new", options)
        assert not (tmp_path / "new").exists()

    def test_a_fold_that_is_not_proved_publishes_nothing(
        self, model: Path, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = fuse._fuse_residual

        def wrong(*args: Any) -> dict[str, Any]:
            fields = right(*args)
            return {**fields, "gate.bias": 0 * fields["gate.bias"]}

        monkeypatch.setattr(fuse, "_fuse_residual", wrong)
        before = content(engine)
        options = dataclasses.replace(OPTIONS, weights="model")
        for directory in (engine, tmp_path / "new"):
            with pytest.raises(CheckFailedError, match=r"parity: block streams\.0\.0, float64"):
                fuse_to_deployment(model, directory, options)
        assert content(engine) == before
        assert not (tmp_path / "new").exists()

    def test_an_export_that_is_not_proved_publishes_nothing(
        self, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def constant(*args: Any, **kwargs: Any) -> torch.Tensor:
            return 1.01 * fuse.bias_map(*args, **kwargs)

        monkeypatch.setattr(to_onnx, "bias_map", constant)
        before = content(engine)
        with pytest.raises(
            CheckFailedError, match="parity: part fusion1 on ONNX Runtime at 64x64: error"
        ):
            export_to_deployment(engine, InputSize.parse("64"))
        assert content(engine) == before

    def test_a_fused_form_that_is_not_the_trained_one_is_not_exported(
        self, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The proof at the exported size, beside the one when it was fused."""

        def other(deployment: Deployment) -> ParNet:
            network = ParNet(SPEC)
            network.load_state_dict(random_state(SPEC, seed=5))
            return network

        monkeypatch.setattr(export_step, "training_form", other)
        before = content(engine)
        with pytest.raises(CheckFailedError, match="fused against training form at the exported"):
            export_to_deployment(engine, InputSize.parse("64"))
        assert content(engine) == before

    def test_weights_fused_meanwhile_are_not_overwritten(
        self, model: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = export_step._check_parts
        other = dataclasses.replace(OPTIONS, weights="model")

        def slow(*args: Any) -> Any:
            fuse_to_deployment(model, engine, other)
            return right(*args)

        monkeypatch.setattr(export_step, "_check_parts", slow)
        with pytest.raises(DeploymentChangedError, match="other weights were fused while these"):
            export_to_deployment(engine, InputSize.parse("64"))
        found = Deployment.open(engine)
        assert set(found.artifacts) == {FUSED, FUSE_REPORT}
        assert bool(found.verify())


class TestExport:
    def test_publishes_graphs_reference_and_report(self, made: Path) -> None:
        found = Deployment.open(made / "engine")
        assert bool(found.verify())
        assert set(found.artifacts) == {FUSED, FUSE_REPORT, EXPORT_REPORT, REFERENCE} | PARTS
        assert str(found.input_size) == "32x64"
        report = read_report(made / "engine", EXPORT_REPORT)
        assert set(report["parts"]) == {part.name for part in SPEC.parts}
        assert len(report["checks"]) == len(SPEC.parts) + 1
        assert all(check["passed"] for check in report["checks"])
        assert report["reference"] == "training form in PyTorch"
        assert report["input_size"] == "32x64"

    def test_reference_is_the_training_form(self, made: Path) -> None:
        found = Deployment.open(made / "engine")
        stored = Reference.unpack(found.read_bytes(REFERENCE), "here")
        assert stored.image.shape == (1, 3, 32, 64)
        network = ParNet(SPEC)
        network.load_state_dict(random_state(SPEC, seed=1))
        with torch.inference_mode():
            expected = network(torch.from_numpy(stored.image)).numpy()
        assert np.abs(stored.logits - expected).max() <= 1e-6 * np.abs(expected).max()

    def test_unchanged_is_skipped(self, engine: Path) -> None:
        before = content(engine)
        for size in (None, InputSize.parse("32x64")):
            result = export_to_deployment(engine, size)
            assert result.skipped
            assert result.report["input_size"] == "32x64"
        assert content(engine) == before

    def test_another_size_exports_again(self, engine: Path) -> None:
        done: list[str] = []
        size = InputSize.parse("64")
        assert not export_to_deployment(engine, size, on_part=done.append).skipped
        assert done == [part.name for part in SPEC.parts]
        found = Deployment.open(engine)
        assert found.input_size == size
        assert (found.preprocessing or {})["height"] == 64
        assert set(found.artifacts) == {FUSED, FUSE_REPORT, EXPORT_REPORT, REFERENCE} | PARTS
        assert export_to_deployment(engine).skipped  # without a size: what the last export had

    def test_a_range_keeps_a_preprocessing_that_is_inside(self, engine: Path) -> None:
        export_to_deployment(engine, InputSize.parse("32:96"))
        found = Deployment.open(engine)
        assert found.preprocessing == SMALL.to_json()
        assert Reference.unpack(found.read_bytes(REFERENCE), "").image.shape == (1, 3, 96, 96)
        export_to_deployment(engine, InputSize.parse("64:96"))
        assert (Deployment.open(engine).preprocessing or {})["height"] == 64

    def test_twice_gives_the_same_graphs(self, model: Path, made: Path, tmp_path: Path) -> None:
        fuse_to_deployment(model, tmp_path / "engine", OPTIONS)
        export_to_deployment(tmp_path / "engine")
        first, second = (Deployment.open(p / "engine").artifacts for p in (made, tmp_path))
        for name in (FUSED, *PARTS):
            assert first[name]["sha256"] == second[name]["sha256"], name

    @pytest.mark.parametrize(
        ("low", "high"), [((48, 48), (48, 48)), ((32, 32), (96, 80)), ((16, 32), (64, 64))]
    )
    def test_an_illegal_size(
        self, engine: Path, low: tuple[int, int], high: tuple[int, int]
    ) -> None:
        before = content(engine)
        with pytest.raises(SpecError, match=r"input size: got .*, expected multiples of 32"):
            export_to_deployment(engine, InputSize(low=low, high=high))
        assert content(engine) == before

    def test_without_the_checkpoint_the_reference_is_the_fused_form(
        self, made: Path, tmp_path: Path
    ) -> None:
        model = Path(shutil.copy(made / "model.pth.tar", tmp_path))
        fuse_to_deployment(model, tmp_path / "engine", OPTIONS)
        model.unlink()
        report = export_to_deployment(tmp_path / "engine").report
        assert report["reference"].startswith("fused form in PyTorch (checkpoint not found")
        old, new = (
            Reference.unpack(Deployment.open(path / "engine").read_bytes(REFERENCE), "")
            for path in (made, tmp_path)
        )
        assert np.abs(old.logits - new.logits).max() <= 1e-5 * np.abs(old.logits).max()

    def test_another_file_at_the_place_of_the_checkpoint_is_not_used(
        self, made: Path, tmp_path: Path
    ) -> None:
        model = Path(shutil.copy(made / "model.pth.tar", tmp_path))
        fuse_to_deployment(model, tmp_path / "engine", OPTIONS)
        other = random_state(SPEC, seed=9)
        write_release(model, other, state_dict_ema=other)
        assert training_form(Deployment.open(tmp_path / "engine")) is None

    def test_a_checkpoint_that_cannot_be_read_any_more_is_not_used(
        self, made: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: Path) -> tuple[str, int]:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(trained, "hash_file", fail)
        assert training_form(Deployment.open(made / "engine")) is None

    def test_the_training_form_has_the_chosen_weights(self, made: Path) -> None:
        network = training_form(Deployment.open(made / "engine"))
        assert network is not None
        assert not network.training
        state, ema = network.state_dict(), random_state(SPEC, seed=1)
        assert all(torch.equal(state[n], t) for n, t in ema.items() if t.is_floating_point())

    def test_no_deployment(self, tmp_path: Path) -> None:
        with pytest.raises(DeploymentNotFoundError):
            export_to_deployment(tmp_path / "none")

    def test_a_deployment_without_weights(self, tmp_path: Path) -> None:
        with Deployment.edit(tmp_path / "engine", create=True) as txn:
            txn.describe(spec=SPEC, preprocessing=SMALL.to_json())
            txn.stage("notes.txt").write_text("nothing else", encoding="utf-8")
            txn.finish_step("fuse", key=step_key(a=1))
        with pytest.raises(DeploymentError, match=r"got no fused.safetensors, expected fused"):
            export_to_deployment(tmp_path / "engine")

    def test_another_activation_exports_other_nodes(self, made: Path, tmp_path: Path) -> None:
        options = dataclasses.replace(OPTIONS, activation="relu")
        fuse_to_deployment(made / "model.pth.tar", tmp_path / "engine", options)
        found = Deployment.open(tmp_path / "engine")
        assert found.spec.activation == "relu"
        assert found.source["activation"]["decided_by"] == "option"
        export_to_deployment(tmp_path / "engine")
        assert b"relu" in (tmp_path / "engine/onnx/stem0.onnx").read_bytes()
        assert b"relu" not in (made / "engine/onnx/stem0.onnx").read_bytes()


@pytest.mark.parametrize("name", ["two", "odd-relu", "four", "five-grey"])
def test_every_kind_of_network_from_file_to_graphs(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    path = write_state(tmp_path / "model.safetensors", random_state(spec))
    side = spec.size_multiple
    options = FuseOptions(
        activation=spec.activation, preprocessing=Preprocessing(height=side, width=side)
    )
    assert fuse_to_deployment(path, tmp_path / "engine", options).report["spec"] == spec.to_json()
    report = export_to_deployment(tmp_path / "engine").report
    assert report["reference"] == "training form in PyTorch"
    assert set(report["parts"]) == {part.name for part in spec.parts}


# What the training arguments say of the images


class Loaded:
    """As much of a checkpoint as the preprocessing is read from."""

    def __init__(self, **args: Any) -> None:
        self.spec, self.training_args = SPEC, args


def prepared(**args: Any) -> tuple[Preprocessing, str]:
    return trained_preprocessing(Loaded(**args))  # type: ignore[arg-type]


def test_usable_training_arguments_count() -> None:
    found, origin = prepared(
        input_size=[3, 96, 64], mean=[0.5, 0.5, 0.5], std=[0.2, 0.3, 0.4], crop_pct=0.9,
        interpolation="bilinear",
    )  # fmt: skip
    assert found == Preprocessing(
        height=96, width=64, mean=(0.5,) * 3, std=(0.2, 0.3, 0.4), crop_fraction=0.9,
        interpolation="bilinear",
    )  # fmt: skip
    assert origin == "from the checkpoint's training arguments"


def test_silent_training_arguments_mean_the_authors_evaluation() -> None:
    found, origin = prepared(lr=0.1, input_size=None)
    assert (found, origin) == (
        Preprocessing(),
        "the authors' evaluation, for the checkpoint does not tell",
    )


@pytest.mark.parametrize(
    "args",
    [
        {"input_size": [3, 48, 48]},
        {"input_size": [3, 10**30, 32]},
        {"input_size": [3, True, 32]},
        {"input_size": [3, -32, 32]},
        {"input_size": [1, 32, 32]},
        {"input_size": "32"},
        {"input_size": 32},
        {"img_size": "32"},
        {"img_size": 10**400},
        {"img_size": 64, "mean": [0.5, 0.5]},
        {"img_size": 64, "mean": [10**400] * 3},
        {"img_size": 64, "mean": "grey"},
        {"img_size": 64, "std": [0.0, 1.0, 1.0]},
        {"img_size": 64, "crop_pct": 10**400},
        {"img_size": 64, "crop_pct": "all"},
        {"img_size": 64, "interpolation": ["bilinear"]},
        {"img_size": 64, "interpolation": "random"},
        {"img_size": 64, "crop_mode": [1]},
    ],
    ids=lambda args: str(args)[:50],
)
def test_hostile_training_arguments_are_left_aside_and_said_so(args: dict[str, Any]) -> None:
    found, origin = prepared(**args)
    assert found == Preprocessing()
    assert origin.startswith("the authors' evaluation, for the checkpoint's own arguments cannot")


def test_training_arguments_reach_the_deployment(tmp_path: Path) -> None:
    args = argparse.Namespace(img_size=64, crop_pct=1.0, seed=math.nan, gp="fast")
    path = write_release(tmp_path / "m.pth.tar", random_state(SPEC), args=args)
    fuse_to_deployment(path, tmp_path / "engine")
    found = Deployment.open(tmp_path / "engine")
    assert found.preprocessing == Preprocessing(height=64, width=64, crop_fraction=1.0).to_json()
    assert "seed" not in found.source["training_args"]
    json.dumps(found.source, allow_nan=False)


def test_state_of_a_test_network_has_no_fresh_batch_norm() -> None:
    """The helper that all these tests stand on."""
    state: State = random_state(SPEC)
    for name, tensor in state.items():
        if name.endswith("running_var"):
            prefix = name.removesuffix("running_var")
            assert bool((tensor != 1).all()), name
            assert bool((state[f"{prefix}running_mean"] != 0).all()), name
            assert bool((state[f"{prefix}weight"] != 1).all()), name
            assert bool((state[f"{prefix}bias"] != 0).all()), name


class TestWhatIsRemembered:
    def test_the_same_checkpoint_elsewhere_is_found_there_later(
        self, engine: Path, model: Path, tmp_path: Path
    ) -> None:
        moved = tmp_path / "moved.pth.tar"
        shutil.copy(model, moved)
        digest = Deployment.open(engine).steps["fuse"]
        assert fuse_to_deployment(moved, engine, OPTIONS).skipped
        found = Deployment.open(engine)
        assert found.source["path"] == str(moved)
        assert found.steps["fuse"] == digest
        assert "export" in found.steps
        assert training_form(found) is not None

    def test_a_range_after_another_size_goes_back_to_the_native_size(self, engine: Path) -> None:
        export_to_deployment(engine, InputSize.parse("128"))
        assert (Deployment.open(engine).preprocessing or {})["height"] == 128
        export_to_deployment(engine, InputSize.parse("32:256"))
        preprocessing = Deployment.open(engine).preprocessing or {}
        assert (preprocessing["height"], preprocessing["width"]) == (32, 64)

    def test_a_range_is_proved_at_its_ends_and_in_between(self, engine: Path) -> None:
        report = export_to_deployment(engine, InputSize.parse("32x64:64x128")).report
        whole = [c["what"] for c in report["checks"] if c["what"].startswith("all parts")]
        assert [what.rsplit(" ", 1)[1] for what in whole] == ["64x128", "32x64", "32x128"]
