"""Files that are small and hostile, or damaged where torch does not look."""

from __future__ import annotations

import argparse
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from parnet_deploy.errors import CheckpointError
from parnet_deploy.export.checkpoint import load_checkpoint
from parnet_deploy.export.checkpoint_file import read_training_args
from tests.networks import SPEC, random_state, write_release, write_state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.pth"
    write_state(path, random_state(SPEC))
    return path


def test_a_list_that_holds_itself_many_times_is_left_out_at_once(tmp_path: Path) -> None:
    laughs: list[Any] = [0] * 10
    for _ in range(7):
        laughs = [laughs] * 60  # 60**7 * 10 numbers, in a few kilobytes of pickle
    path = tmp_path / "laughs.pth"
    write_release(path, random_state(SPEC), args=argparse.Namespace(lr=0.1, laughs=laughs))
    assert "laughs" not in load_checkpoint(path).training_args
    assert load_checkpoint(path).training_args["lr"] == 0.1


@pytest.mark.parametrize("value", [2**64, "x" * 5000, [float("nan")], {"a": 1}, [[[]] * 5000]])
def test_what_is_no_small_plain_json_is_left_out(value: object) -> None:
    content = {"args": argparse.Namespace(odd=value, kept=[1, "two", None, 0.5])}
    assert read_training_args(content) == {"kept": [1, "two", None, 0.5]}


def test_one_flipped_bit_in_a_weight_is_found_by_its_checksum(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = bytearray(checkpoint.read_bytes())
    with zipfile.ZipFile(checkpoint) as archive:
        weights = [record for record in archive.infolist() if "/data/" in record.filename]
        largest = archive.read(max(weights, key=lambda record: record.file_size))
    middle = bytes(data).index(largest) + len(largest) // 2
    data[middle] ^= 0x40
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(data)
    torch.load(damaged, weights_only=True)  # torch does not notice
    with pytest.raises(CheckpointError, match=r"damaged: record .*does not fit its checksum"):
        load_checkpoint(damaged)


def test_a_zip_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(200 * 1024 * 1024))
    with pytest.raises(CheckpointError, match="expected at most 20 times the file"):
        load_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\0" * 100, b"\x10\0\0\0\0\0\0\0{"])
def test_a_file_that_is_no_safetensors_but_called_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged|not a checkpoint"):
        load_checkpoint(path)


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "pipe.pth"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="got no regular file"):
        load_checkpoint(path)


def test_one_strange_name_among_prefixed_ones_is_named(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in random_state(SPEC).items()}
    path = tmp_path / "model.pth"
    torch.save({**state, "foo.bar": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"unexpected: foo\.bar, for planes"):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_named(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    path = tmp_path / "model.pth"
    torch.save({**random_state(SPEC), "odd": nested}, path)
    with pytest.raises(CheckpointError, match=r"not a state dict: odd"):
        load_checkpoint(path)
