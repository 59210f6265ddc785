from __future__ import annotations

import json
import math

import pytest

from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.quantize.table import CalibrationTable, TensorRange

TABLE = CalibrationTable(
    method="percentile",
    percentile=99.9,
    images=32,
    data_sha256="a" * 64,
    model_sha256="b" * 64,
    preprocessing={"height": 32},
    clipped=0.001,
    tensors={"image": TensorRange(min=-1.0, max=2.0, low=-0.9, high=1.8, clipped=0.01)},
)


def changed(**changes):
    data = json.loads(json.dumps(TABLE.to_json()))
    tensor = {k[7:]: v for k, v in changes.items() if k.startswith("tensor_")}
    data["tensors"]["image"] |= tensor
    return data | {k: v for k, v in changes.items() if not k.startswith("tensor_")}


def test_it_reads_back_what_it_wrote() -> None:
    assert CalibrationTable.from_json(changed(), "table") == TABLE


def test_the_symmetric_range_covers_both_sides() -> None:
    assert TABLE.tensors["image"].amax == 1.8


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "guess"}, "table, method: got guess"),
        ({"images": "many"}, "table, images: got 'many'"),
        ({"images": True}, "table, images: got True"),
        ({"clipped": 1.5}, "table, clipped: got 1.5"),
        ({"clipped": None}, "table, clipped: got None"),
        ({"extra": 1}, "table, keys"),
        ({"tensors": {"image": {"min": 0}}}, "table, tensor image"),
        ({"tensor_low": 0.1}, "low <= 0 <= high"),
        ({"tensor_min": 3.0}, "low <= 0 <= high"),
        ({"tensor_clipped": 1.5}, "and a share"),
        ({"tensor_high": math.nan}, "tensor image high: got nan"),
        ({"tensor_high": math.inf}, "tensor image high: got inf"),
        ({"tensor_high": None}, "tensor image high: got None"),
    ],
)
def test_a_damaged_table_is_refused(changes, text) -> None:
    with pytest.raises(DeploymentCorruptError, match=text) as caught:
        CalibrationTable.from_json(changed(**changes), "table")
    assert "Run: parnet-deploy calibrate." in str(caught.value)


def test_a_table_that_is_no_object_is_refused() -> None:
    with pytest.raises(DeploymentCorruptError, match="table, keys: got list"):
        CalibrationTable.from_json([], "table")


def test_another_schema_is_named() -> None:
    with pytest.raises(DeploymentError, match="got schema version 2, expected 1"):
        CalibrationTable.from_json(changed(schema_version=2), "table")
