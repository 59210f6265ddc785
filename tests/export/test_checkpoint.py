"""Checkpoints of every layout are read; whatever is wrong with one, the error says so in a line."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from parnet_deploy.errors import AlreadyFusedError, CheckpointError, UnsafeCheckpointError
from parnet_deploy.export import checkpoint_file
from parnet_deploy.export.checkpoint import Checkpoint, load_checkpoint
from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.model import ParNet
from parnet_deploy.spec import RELEASED, Activation, ModelSpec
from tests.networks import SPEC, SPECS, State, random_state, write_release, write_state

WEIGHT = "streams.1.0.block.rbr_dense.conv.weight"
MEANS = "block.rbr_identity.running_mean"


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(SPEC)


def refused(path: Path, kind: type[CheckpointError] = CheckpointError, **options: Any) -> str:
    """The text of the error, which is one line, names the file and is of exactly this kind."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **options)
    assert type(caught.value) is kind, caught.value
    text = str(caught.value)
    assert text.startswith(f"checkpoint {path}: ")
    assert text.isprintable()
    assert len(text) < 2000
    return text


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(checkpoint: Checkpoint, state: State) -> bool:
    """Whether these are exactly the weights, without the batch counters."""
    wanted = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    return wanted.keys() == checkpoint.tensors.keys() and all(
        torch.equal(wanted[name], tensor) for name, tensor in checkpoint.tensors.items()
    )


# Layouts


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_plain_layouts(tmp_path: Path, state: State, suffix: str, prefix: str) -> None:
    found = load_checkpoint(write_state(tmp_path / f"model{suffix}", state, prefix))
    assert found.layout == ("safetensors" if suffix == ".safetensors" else "state-dict")
    assert (found.weights, found.spec, found.notes) == ("model", SPEC, ())
    assert same(found, state)
    assert found.sha256 == checkpoint_file.hash_checkpoint(found.path)


def test_layout_before_zip_files(tmp_path: Path, state: State) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(path), state)


def test_parameters_and_channels_last_tensors(tmp_path: Path, state: State) -> None:
    other: State = {
        name: torch.nn.Parameter(t.contiguous(memory_format=torch.channels_last))
        if t.dim() == 4
        else t
        for name, t in state.items()
    }
    found = load_checkpoint(save(tmp_path / "model.pth", other))
    assert same(found, state)
    assert all(t.is_contiguous() and not t.requires_grad for t in found.tensors.values())


def test_no_batch_counters(tmp_path: Path, state: State) -> None:
    less = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert same(load_checkpoint(write_state(tmp_path / "model.pth", less)), state)


@pytest.mark.parametrize("weights", ["auto", "model", "ema"])
def test_release_layout(tmp_path: Path, state: State, weights: Any) -> None:
    ema = random_state(SPEC, seed=1)
    path = write_release(tmp_path / "model.pth.tar", state, state_dict_ema=ema)
    found = load_checkpoint(path, weights=weights)
    assert found.layout == "release"
    assert found.weights == ("model" if weights == "model" else "ema")
    assert same(found, state if weights == "model" else ema)
    note = "Took the EMA weights; the plain ones are there too (--weights model)."
    assert found.notes == ((note,) if weights == "auto" else ())
    assert found.training_args == {
        "lr": 0.1,
        "model": "ParNet",
        "epoch": 3,
        "arch": "ParNet",
        "version": 2,
    }


@pytest.mark.parametrize("ema", [None, {}])
def test_auto_takes_what_there_is(tmp_path: Path, state: State, ema: object) -> None:
    path = write_release(tmp_path / "m.pth.tar", state, state_dict_ema=ema)
    found = load_checkpoint(path)
    assert (found.weights, found.notes) == ("model", ())
    text = refused(path, weights="ema")
    assert "--weights ema: got none of these, expected one of ['model']." in text


def test_only_ema(tmp_path: Path, state: State) -> None:
    path = save(tmp_path / "m.pth.tar", {"state_dict_ema": state})
    assert load_checkpoint(path).weights == "ema"
    assert "--weights model: got none of these" in refused(path, weights="model")


def test_ema_of_a_plain_file(tmp_path: Path, state: State) -> None:
    text = refused(write_state(tmp_path / "m.pth", state), weights="ema")
    assert "--weights ema: a state-dict file holds one set of weights. Use --weights auto." in text


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ({"lr": math.nan, "wd": math.inf, "good": 1.5}, {"good": 1.5}),
        ({"text": "x" * 10_000, "flag": True}, {"flag": True}),
        ({"sizes": [3, 64, 64], "deep": [[[[[[[[[[1]]]]]]]]]]}, {"sizes": [3, 64, 64]}),
        ({"tensor": torch.zeros(2), "nothing": None}, {"nothing": None}),
        ({"dict": {"a": 1}, "quote": "\ud800"}, {"quote": "\ud800"}),
    ],
)
def test_training_args_are_plain_json_only(
    tmp_path: Path, state: State, args: dict[str, Any], kept: dict[str, Any]
) -> None:
    content = {"state_dict": state, "args": argparse.Namespace(**args), "metric": math.nan}
    assert load_checkpoint(save(tmp_path / "m.pth", content)).training_args == kept


def test_training_args_with_hostile_keys_and_numbers(tmp_path: Path, state: State) -> None:
    args = argparse.Namespace()
    vars(args).update({"good": 1, 5: "a key that is no name"})  # type: ignore[dict-item]
    vars(args).update({f"many{i}": i for i in range(2_000)})
    found = load_checkpoint(save(tmp_path / "m.pth", {"state_dict": state, "args": args}))
    assert len(found.training_args) == 500
    assert found.training_args["good"] == 1


# The network, off the shapes


@pytest.mark.parametrize("name", SPECS)
def test_configuration_is_read_off_the_shapes(tmp_path: Path, name: str) -> None:
    spec = SPECS[name]
    path = write_state(tmp_path / "m.pt", random_state(spec))
    assert load_checkpoint(path, activation=spec.activation).spec == spec


@given(
    streams=st.integers(2, 5),
    data=st.data(),
    classes=st.integers(1, 7),
    activation=st.sampled_from(["silu", "relu"]),
)
@settings(max_examples=15)
def test_any_configuration_is_read_off_the_shapes(
    tmp_path_factory: pytest.TempPathFactory,
    streams: int,
    data: st.DataObject,
    classes: int,
    activation: Activation,
) -> None:
    widths = [
        data.draw(st.sampled_from([2, 4, 6]) if i > 1 or i == streams - 1 else st.integers(1, 7))
        for i in range(streams)
    ]
    depths = [data.draw(st.integers(1, 3)) for _ in range(streams - 1)]
    spec = ModelSpec(
        planes=(*widths, data.draw(st.integers(1, 9))),
        num_blocks=(*depths, 2, 1),
        num_classes=classes,
        activation=activation,
    )
    path = tmp_path_factory.mktemp("spec") / "m.safetensors"
    assert (
        load_checkpoint(write_state(path, random_state(spec)), activation=activation).spec == spec
    )


# The activation


def with_means(state: State, change: Callable[[Tensor], Tensor]) -> State:
    return {n: change(t) if n.endswith(MEANS) else t for n, t in state.items()}


def test_one_negative_mean_proves_silu(tmp_path: Path, state: State) -> None:
    changed = with_means(state, torch.ones_like)
    changed[f"streams.0.0.{MEANS}"] = torch.tensor([-0.01, 1, 1, 1])
    found = load_checkpoint(write_state(tmp_path / "m.pt", changed)).activation
    assert (found.activation, found.decided_by, found.warning) == ("silu", "weights", None)
    count = SPEC.planes[0] + 2 * SPEC.planes[1] + SPEC.planes[2]
    assert found.evidence.startswith(f"1 of {count} identity BatchNorm means are negative")
    assert "-0.0100" in found.evidence


def test_contradiction_is_a_warning_and_the_option_wins(tmp_path: Path, state: State) -> None:
    found = load_checkpoint(write_state(tmp_path / "m.pt", state), activation="relu")
    assert (found.spec.activation, found.activation.decided_by) == ("relu", "option")
    assert found.activation.warning is not None
    assert "--activation relu contradicts the weights:" in found.activation.warning
    assert found.notes == (found.activation.warning,)


def test_agreement_is_no_warning(tmp_path: Path, state: State) -> None:
    found = load_checkpoint(write_state(tmp_path / "m.pt", state), activation="silu").activation
    assert (found.decided_by, found.warning) == ("option", None)


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_positive_means_are_told_by_their_size(tmp_path: Path, activation: Activation) -> None:
    """Means that a Gaussian has after the activation, for the BatchNorms before it."""
    spec = dataclasses.replace(SPEC, activation=activation, num_blocks=(2, 2, 2, 1))
    changed = random_state(spec)
    act = torch.nn.functional.silu if activation == "silu" else torch.relu
    for i, before in enumerate(("inits.0.1", "inits.1", "inits.2")):
        prefix = f"{before}.block"
        for branch in ("rbr_dense.bn", "rbr_1x1.1.bn"):
            changed[f"{prefix}.{branch}.bias"] = torch.full((spec.planes[i],), 0.3)
            changed[f"{prefix}.{branch}.weight"] = torch.full((spec.planes[i],), 0.5)
        values = 0.6 + 0.5**0.5 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
        changed[f"streams.{i}.0.{MEANS}"] = act(values).mean().expand(spec.planes[i]).clone()
    found = load_checkpoint(write_state(tmp_path / "m.pt", changed)).activation
    assert (found.activation, found.warning) == (activation, None)
    percent = "100%" if activation == "silu" else "0%"
    assert f"SiLU explains {percent} of" in found.evidence


def test_mixed_evidence_needs_the_option(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, num_blocks=(2, 1, 1, 1))
    changed = random_state(spec)
    for branch in ("rbr_dense.bn", "rbr_1x1.1.bn"):
        changed[f"inits.0.1.block.{branch}.bias"] = torch.zeros(4)
        changed[f"inits.0.1.block.{branch}.weight"] = torch.ones(4)
    changed[f"streams.0.0.{MEANS}"] = torch.tensor([0.01, 0.01, 9.0, 9.0])
    path = write_state(tmp_path / "m.pt", changed)
    text = refused(path)
    assert "cannot tell the activation: SiLU explains 50% of 4" in text
    assert "--activation silu or --activation relu" in text
    assert load_checkpoint(path, activation="silu").activation.warning is None


def test_untouched_statistics_cannot_tell(tmp_path: Path, state: State) -> None:
    path = write_state(tmp_path / "m.pt", with_means(state, torch.zeros_like))
    assert "means are exactly 0 (never trained). Give it: --activation" in refused(path)
    assert load_checkpoint(path, activation="relu").spec.activation == "relu"


def test_no_block_cannot_tell(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, num_blocks=(1, 1, 1, 1))
    path = write_state(tmp_path / "m.pt", random_state(spec))
    assert "cannot tell the activation: no stream has a block" in refused(path)


@pytest.mark.parametrize(("lowest", "warned"), [(-0.278, False), (-0.279, True)])
def test_a_mean_that_silu_cannot_give(
    tmp_path: Path, state: State, lowest: float, warned: bool
) -> None:
    path = write_state(tmp_path / "m.pt", with_means(state, lambda t: torch.full_like(t, lowest)))
    found = load_checkpoint(path)
    assert found.spec.activation == "silu"
    assert bool(found.notes) == warned
    if warned:
        assert "running mean -0.279, below SiLU's minimum -0.2785" in found.notes[0]
        assert "not the statistics of a trained ParNet" in found.notes[0]


# Files that want to run code


class Hostile:
    """Unpickled without care, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def raw(protocol: int) -> Callable[[Path, object], object]:
    return lambda path, content: path.write_bytes(pickle.dumps(content, protocol))


WRITERS: dict[str, Callable[[Path, object], object]] = {
    "zip": lambda path, content: torch.save(content, path),
    "zip, protocol 4": lambda path, content: torch.save(content, path, pickle_protocol=4),
    "legacy": lambda path, content: torch.save(content, path, _use_new_zipfile_serialization=False),
    **{f"raw, protocol {number}": raw(number) for number in range(6)},
}


@pytest.mark.parametrize("place", ["alone", "state_dict", "args", "optimizer", "beside"])
@pytest.mark.parametrize("layout", WRITERS)
def test_code_is_refused_and_not_executed(
    tmp_path: Path, state: State, layout: str, place: str
) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pth"
    hostile = Hostile(mark)
    content: Any = {
        "alone": hostile,
        "beside": {"x": 1, "bad": hostile},
    }.get(place, {"state_dict": {}, place: hostile})
    WRITERS[layout](path, content)
    text = refused(path, UnsafeCheckpointError)
    assert not mark.exists()
    assert "refused: the file asks for " in text
    assert "Nothing was executed." in text
    if layout in ("zip", "legacy", "raw, protocol 2"):
        assert "asks for posix.mkdir;" in text
    with path.open("rb") as file:  # the trap is a real one: sprung without care
        if layout.startswith("raw"):
            pickle.load(file)
            assert mark.exists()


def test_a_whole_model_is_refused_by_name(tmp_path: Path) -> None:
    text = refused(save(tmp_path / "m.pth", torch.nn.Linear(2, 2)), UnsafeCheckpointError)
    assert "asks for torch.nn.modules.linear.Linear; only tensors" in text
    assert "torch.save(model.state_dict(), ...)" in text


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02(S'x'\nios\nmkdir\n.",  # INST
        b"\x80\x02cargparse\nNamespace\n\x8c\x01x\x93.",  # STACK_GLOBAL
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02}X\x01\x00\x00\x00aK\x01)R.",  # a call of a number
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x02K\x01K\x02b.",  # BUILD of a number
        b"\x80\x02K\x01)\x81.",  # NEWOBJ of a number
    ],
)
def test_other_ways_to_ask_for_code(tmp_path: Path, code: bytes) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(code)
    assert "refused: the file asks for " in refused(path, UnsafeCheckpointError)


def test_legacy_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            (tmp_path / name).write_bytes(pickle.dumps(Hostile(tmp_path / "mark")))
            archive.add(tmp_path / name, name)
    refused(path)
    assert not (tmp_path / "mark").exists()


def test_namespace_with_methods_of_its_own(tmp_path: Path, state: State) -> None:
    """Namespace is allowed; what it holds is data all the same."""
    args = argparse.Namespace()
    vars(args).update({"__class__": "x", "__setstate__": 5, "__dict__": {"a": 1}})
    content = {"state_dict": state, "args": args}
    try:
        found = load_checkpoint(save(tmp_path / "m.pth", content))
    except CheckpointError:
        return
    assert same(found, state)


# Damaged files


def test_no_file(tmp_path: Path) -> None:
    assert "got no such file, expected a file. Check the path." in refused(tmp_path / "no.pth")


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got no such file"):
        load_checkpoint(tmp_path / ("x" * 5000))


def test_a_directory(tmp_path: Path) -> None:
    assert "got a directory, expected a file" in refused(tmp_path)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(b"x")

    def fail(path: Path) -> tuple[str, int]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint_file, "hash_file", fail)
    assert "cannot read it: Permission denied. Check its permissions." in refused(path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.touch()
    assert "damaged, cut off or not a checkpoint" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        b"hello world\n",
        b"\0" * 100,
        b"{}",
    ],
)
def test_another_kind_of_file_is_not_called_unsafe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(content)
    assert "not a checkpoint" in refused(path)


@pytest.mark.parametrize("layout", ["release", "legacy", "safetensors"])
def test_cut_off_anywhere(tmp_path: Path, state: State, layout: str) -> None:
    whole = tmp_path / f"m.{layout}"
    if layout == "release":
        write_release(whole, state)
    elif layout == "legacy":
        torch.save(state, whole, _use_new_zipfile_serialization=False)
    else:
        write_state(whole, state)
    data = whole.read_bytes()
    cut = tmp_path / "cut.pth"
    points = {*range(0, 40, 3), *range(40, len(data), len(data) // 25), len(data) - 1}
    for point in sorted(points):
        cut.write_bytes(data[:point])
        assert re.search("damaged|cut off|not a checkpoint", refused(cut)), point


@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]))
@settings(max_examples=200)
def test_garbage_is_always_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.pth"
    path.write_bytes(head + data)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@given(data=st.data())
@settings(max_examples=60)
def test_a_flipped_byte_is_an_error_of_ours_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.getbasetemp()
    good = directory / "whole.pth"
    if not good.exists():
        write_release(good, random_state(SPEC))
    with zipfile.ZipFile(good) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
    damaged = bytearray(good.read_bytes())
    start = entry.header_offset
    where = data.draw(st.integers(start, start + entry.file_size + 100))
    damaged[where] ^= data.draw(st.integers(1, 255))
    path = directory / "flipped.pth"
    path.write_bytes(damaged)
    text = ""
    try:
        assert load_checkpoint(path).tensors
    except CheckpointError as error:
        text = str(error)
    assert text.isprintable()


# Tensors that are not those of a trained ParNet


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), 3, None, "text", {1, 2}])
def test_not_a_dict(tmp_path: Path, content: object) -> None:
    text = refused(save(tmp_path / "m.pth", content))
    assert f"got a {type(content).__name__}, expected a dict of tensors." in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not a state dict: empty"),
        ({"a": 1, "b": torch.zeros(1)}, "not a state dict: a: expected tensors by name"),
        ({7: torch.zeros(1)}, "not a state dict: 7: expected tensors by name"),
        ({"state_dict": 5}, "state_dict is a int, expected a dict."),
        ({"state_dict": torch.zeros(3)}, "state_dict is a Tensor, expected a dict."),
        ({"state_dict": {}}, "--weights auto: got none of these, expected one of model, ema."),
        (
            {"conv1.weight": torch.zeros(1)},
            "not a ParNet: no tensor inits.0.* among 1; found conv1",
        ),
    ],
)
def test_not_a_state_dict(tmp_path: Path, content: object, message: str) -> None:
    assert message in refused(save(tmp_path / "m.pth", content))


def changed(state: State, name: str, tensor: Tensor | None) -> State:
    """The state with one tensor replaced, added or, if None is given, left out."""
    result = {**state, name: tensor} if tensor is not None else dict(state)
    if tensor is None:
        del result[name]
    return result


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (WEIGHT, None, f"missing: {WEIGHT}, for planes (4, 6, 8, 12), blocks (2, 3, 2, 1) and 5"),
        ("head.fc.bias", None, "missing: head.fc.bias, for"),
        ("head.fc.weight", None, "head.fc.weight: it is missing; the network's size is read off"),
        ("head.fc.weight", torch.zeros(()), "head.fc.weight: got shape (); the network's size"),
        ("extra.weight", torch.zeros(1), "unexpected: extra.weight, for planes"),
        ("a\nb\x1b[31m", torch.zeros(1), r"unexpected: 'a\nb\x1b[31m', for planes"),
        ("x" * 5000, torch.zeros(1), "unexpected: " + "x" * 120 + "..., for planes"),
        (WEIGHT, torch.zeros(6, 6, 1, 1), f"wrong shape: {WEIGHT} (6, 6, 1, 1) instead of (6, 6,"),
        ("streams.0.999999999.block.x", torch.zeros(1), "missing: streams.0.1.block.rbr_identity"),
        ("inits.7.block.x", torch.zeros(1), "inits.3.block.rbr_dense.conv.weight: it is missing"),
        (WEIGHT, torch.ones(6, 6, 3, 3, dtype=torch.int8), f"{WEIGHT}: got torch.int8"),
        (WEIGHT, torch.ones(6, 6, 3, 3, dtype=torch.complex64), f"{WEIGHT}: got torch.complex64"),
        (WEIGHT, torch.ones(6, 6, 3, 3).to_sparse(), f"{WEIGHT}: got torch.float32 (torch.sparse"),
        (
            WEIGHT,
            torch.ones(6, 6, 3, 3, device="meta"),
            f"{WEIGHT}: got a tensor of shape (6, 6, 3",
        ),
        (WEIGHT, torch.ones(1).expand(6, 6, 3, 3), "without its own values, expected each value"),
        (WEIGHT, torch.full((6, 6, 3, 3), math.nan), "324 of 324 values are NaN or Inf"),
        (
            "head.fc.bias",
            torch.tensor([1, math.inf, 1, 1, 1]),
            "head.fc.bias: 1 of 5 values are NaN",
        ),
        (
            "head.fc.bias",
            torch.tensor([1e300] * 5, dtype=torch.float64),
            "5 of 5 values are NaN or Inf in float32",
        ),
        (
            "combine.0.b1.running_var",
            torch.tensor([1.0, -0.5] * 4),
            "combine.0.b1.running_var: got a negative variance -0.5, expected 0 or more.",
        ),
    ],
)
def test_wrong_tensor(
    tmp_path: Path, state: State, name: str, tensor: Tensor | None, message: str
) -> None:
    assert message in refused(save(tmp_path / "m.pth", changed(state, name, tensor)))


def test_many_missing_names_are_counted(tmp_path: Path, state: State) -> None:
    less = {name: t for name, t in state.items() if "combine.2" not in name}
    text = refused(write_state(tmp_path / "m.pth", less))
    assert re.search(r"missing: (combine\.2[\w.]+, ){4}combine\.2[\w.]+ and \d+ more, for", text)


@pytest.mark.parametrize("width", [10**6, 10**12, 2**62])
def test_gigantic_shapes_are_refused_before_anything_is_made(
    tmp_path: Path, state: State, width: int
) -> None:
    one = torch.zeros(1)
    names = ("inits.0.1", "inits.1", "combine.3")
    huge = {f"{name}.block.rbr_dense.conv.weight": one.expand(width, 1, 1, 1) for name in names}
    text = refused(save(tmp_path / "m.pth", {**state, **huge}))
    assert "parameters in 12 blocks by its shapes, expected at most 2,000,000,000" in text


def test_absurd_depth_is_refused_before_anything_is_made(tmp_path: Path, state: State) -> None:
    one = torch.zeros(1)
    deep = {f"streams.0.{k}.x": one for k in range(2000)}
    assert "in 2,011 blocks by its shapes" in refused(save(tmp_path / "m.pth", {**state, **deep}))


def test_the_largest_released_network_is_within_the_limits(tmp_path: Path) -> None:
    """It gets as far as the values that these stand-ins do not have."""
    spec = RELEASED["parnet-xl"]
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in ParNet(spec).state_dict().items()}
    content = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    assert "without its own values" in refused(save(tmp_path / "m.pth", content))


@pytest.mark.parametrize(
    ("planes", "message"),
    [((4, 6, 7, 12), "network: got an odd width 7"), ((4, 12), "expected the same length and at")],
)
def test_a_network_that_cannot_be(tmp_path: Path, planes: tuple[int, ...], message: str) -> None:
    """Only the shapes that name the configuration are looked at first."""
    names = ["inits.0.1", *(f"inits.{i}" for i in range(1, len(planes) - 1)), "combine.3"]
    shapes = dict(zip(names, planes, strict=True))
    content = {f"{n}.block.rbr_dense.conv.weight": torch.zeros(p, 1) for n, p in shapes.items()}
    content["inits.0.0.block.rbr_dense.conv.weight"] = torch.zeros(4, 3)
    content["head.fc.weight"] = torch.zeros(5, 1)
    assert message in refused(save(tmp_path / "m.pth", content))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_read_and_noted(
    tmp_path: Path, state: State, dtype: torch.dtype
) -> None:
    cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    found = load_checkpoint(write_state(tmp_path / "m.pth", cast))
    assert found.notes == (f"Weights stored as {dtype} were read as float32.",)
    assert {t.dtype for t in found.tensors.values()} == {torch.float32}
    assert torch.equal(found.tensors[WEIGHT], state[WEIGHT].to(dtype).float())


def test_our_fused_weights_are_refused(tmp_path: Path, state: State) -> None:
    path = tmp_path / "fused.safetensors"
    save_file(dict(fuse_network(state, SPEC).tensors), path)
    text = refused(path, AlreadyFusedError)
    assert "fused already: got inits.0.0.gate.weight" in text or "gate.weight" in text
    assert "expected the training form (rbr_dense.conv and rbr_dense.bn)" in text


def test_the_authors_fused_weights_are_refused(tmp_path: Path, state: State) -> None:
    """Their ``fuse_repvgg_block`` puts a convolution with a bias at ``rbr_dense``."""
    fused = {n: t for n, t in state.items() if "rbr_1x1" not in n and "rbr_dense.bn" not in n}
    fused = {n.replace("rbr_dense.conv.", "rbr_dense."): t for n, t in fused.items()}
    text = refused(write_release(tmp_path / "m.pth.tar", fused), AlreadyFusedError)
    assert "fused already: got " in text
    assert "rbr_dense.weight" in text
