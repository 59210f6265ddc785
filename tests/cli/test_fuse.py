"""The verb fuse: what it shows, what it takes from the file, and what it refuses."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from parnet_deploy.cli.fuse import _name
from parnet_deploy.deployment import Deployment

CHECKPOINT = Path(__file__).parents[2] / "examples/digits/digits.pth.tar"
LABELS = CHECKPOINT.with_name("labels.txt")


class Hostile:
    """Unpickling it would make a file."""

    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.fixture
def model(workplace):
    shutil.copy(CHECKPOINT, workplace / "model.pt")
    return workplace / "model.pt"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.pt", "model"),
        ("a/digits.pth.tar", "digits"),
        ("parnet-s.v1.2.safetensors", "parnet-s.v1.2"),
        ("MODEL.PTH", "MODEL"),
        ("my model (2).pt", "my-model-2-"),
        ("model", "model"),
    ],
)
def test_the_default_name_is_the_files_name(file, name):
    assert _name(None, Path(file)) == name.rstrip("-")


def test_it_shows_what_was_taken_with_the_evidence(model, invoke):
    result = invoke("fuse", "model.pt")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "model fused and proved in" in text
    assert "weights ema Took the EMA weights; the plain ones are there too" in text
    assert "activation silu, told by the weights: SiLU explains 78% of 112" in text
    assert "(from the checkpoint's training arguments)" in text
    assert "health 33 weight tensors: no warning" in text
    assert "whole 14 179 → 118 42 → 32 38 → 0" in text
    assert "a gate" in text
    assert "next parnet-deploy build model" in text
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert Deployment.open("engines/model").steps.keys() == {"fuse"}


def test_a_second_time_there_is_nothing_to_do(model, invoke):
    invoke("fuse", "model.pt")
    assert "unchanged, nothing to do" in invoke("fuse", "model.pt").stdout
    assert json.loads(invoke("fuse", "model.pt", "--json").stdout)["skipped"] is True


def test_json_has_the_documented_keys(model, invoke):
    result = invoke("fuse", "model.pt", "--json", "--name", "other")
    found = json.loads(result.stdout)
    assert set(found) == {"deployment", "name", "skipped", "report"}
    assert (found["name"], found["skipped"]) == ("other", False)
    assert set(found["report"]) == {
        *("source", "spec", "proof", "totals"),
        *("weights", "batch_norms", "preprocessing"),
    }


def test_full_shows_every_block(model, invoke):
    result = invoke("fuse", "model.pt", "--full")
    for block in ("inits.0.1", "streams.2.1", "downsamples_2.1.2", "combine.3"):
        assert f"\n{block} " in result.stdout


def test_single_values_override_what_the_checkpoint_says(model, invoke):
    options = ["--mean", "0.1,0.2,0.3", "--size", "64x96", "--crop-fraction", "0.9"]
    assert invoke("fuse", "model.pt", *options, "--labels", LABELS).exit_code == 0
    made = Deployment.open("engines/model")
    assert made.preprocessing == {
        "height": 64,
        "width": 96,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.35, 0.35, 0.35],
        "resize": "stretch",
        "crop_fraction": 0.9,
        "interpolation": "bilinear",
    }
    assert made.labels == tuple("0123456789")


def test_an_overridden_activation_says_what_the_weights_say(model, invoke):
    result = invoke("fuse", "model.pt", "--activation", "relu")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "relu, told by --activation; the weights say: SiLU explains 78%" in text
    assert "! --activation relu contradicts the weights" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--size", "33"], "input size: got 33x33, expected multiples of 32"),
        (["--size", "abc"], "input size: got 'abc', expected for example 224"),
        (["--size", "32:64"], "--size: got the range 32:64, expected one size"),
        (["--crop-fraction", "7"], "preprocessing crop_fraction: got 7.0"),
        (["--labels", "none.txt"], "labels none.txt: got no such file"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(model, invoke, snapshot, options, text):
    before = snapshot()
    result = invoke("fuse", "model.pt", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {text}")
    assert result.stderr.count("\n") == 1
    assert snapshot() == before


def test_a_missing_file(invoke, snapshot):
    result = invoke("fuse", "none.pt")
    assert result.exit_code == 1
    assert (
        result.stderr
        == "error: checkpoint none.pt: got no such file, expected a file. Check the path.\n"
    )
    assert snapshot() == {}


def test_a_hostile_pickle_is_refused_and_not_executed(workplace, invoke):
    with (workplace / "bad.pt").open("wb") as file:
        pickle.dump(Hostile(), file)
    result = invoke("fuse", "bad.pt")
    assert result.exit_code == 1
    assert "refused: the file asks for" in result.stderr
    assert "Nothing was executed" in result.stderr
    assert [path.name for path in workplace.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize("name", ["a/b", "..", "a b", ""])
def test_a_name_that_cannot_be_a_directory_is_usage(model, invoke, name):
    assert invoke("fuse", "model.pt", "--name", name or "/").exit_code == 2


def test_a_failed_proof_is_exit_3_and_keeps_what_was_there(model, invoke, monkeypatch, snapshot):
    from parnet_deploy.export import fuse_step

    def fuse_wrongly(tensors, spec):
        network = fuse_network(tensors, spec)
        name = next(name for name in network.tensors if name.endswith("conv.weight"))
        network.tensors[name].mul_(1 + 1e-3)
        return network

    invoke("fuse", "model.pt", "--weights", "model")
    before = snapshot()
    fuse_network = fuse_step.fuse_network
    monkeypatch.setattr(fuse_step, "fuse_network", fuse_wrongly)
    result = invoke("fuse", "model.pt")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: parity: block inits.0.0, float32: error ")
    assert snapshot() == before


def test_weights_that_cannot_tell_are_asked_for(workplace, invoke):
    content = torch.load(CHECKPOINT, weights_only=False)["state_dict"]
    for name, tensor in content.items():
        if name.endswith("rbr_identity.running_mean"):
            tensor.zero_()
    torch.save(content, workplace / "model.pt")
    result = invoke("fuse", "model.pt")
    assert result.exit_code == 1
    assert "Give it: --activation silu or --activation relu." in result.stderr
    assert invoke("fuse", "model.pt", "--activation", "silu").exit_code == 0


def test_a_warning_on_health_is_shown(workplace, invoke):
    content = torch.load(CHECKPOINT, weights_only=False)["state_dict"]
    name = next(name for name in content if name.endswith("inits.1.block.rbr_dense.bn.weight"))
    content[name][0] *= 1000
    torch.save(content, workplace / "model.pt")
    result = invoke("fuse", "model.pt")
    assert result.exit_code == 0, result.stderr
    assert "! inits.1.conv.weight: channel range ratio" in result.stdout
    assert np.isfinite(content[name].numpy()).all()


def test_a_missing_package_is_one_line_with_the_pip_command(model, run_process):
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['p', 'fuse', 'model.pt'];"
        "from parnet_deploy.cli.main import main; main()"
    )
    done = run_process("-c", code)
    assert done.returncode == 1
    assert done.stderr == (
        "error: package torch: not installed. Run: pip install 'parnet-deploy[export]'.\n"
    )


def test_a_file_name_that_gives_no_name_asks_for_one(invoke, tmp_path) -> None:
    odd = tmp_path / "модель.pt"
    odd.write_bytes(CHECKPOINT.read_bytes())
    result = invoke("fuse", odd)
    assert result.exit_code == 2
    assert "Give it one: --name NAME." in " ".join(result.stderr.split())
    assert invoke("fuse", odd, "--name", "model").exit_code == 0
