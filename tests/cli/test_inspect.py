"""The verb inspect."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest

from parnet_deploy.cli.inspect import _graph
from parnet_deploy.cli.render import bytes_text
from parnet_deploy.deployment import Deployment
from parnet_deploy.spec import ModelSpec
from parnet_deploy.storage.document import seal


def test_at_a_glance(built, invoke):
    result = invoke("inspect")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for expected in (
        "3 streams, planes 8,16,32,64, blocks 3,3,3,1, 10 classes, 80,754 parameters",
        "SiLU explains 78%",
        "accepts 32x32, 3 channels",
        "all unchanged",
        "not done verify, bench",
        "fusion1 y1, d0 d1 32x2x2 1 18,432 4 %",
        "onnxruntime-fp32-one one all 0",
        "next parnet-deploy verify digits",
    ):
        assert expected in text
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_files_are_listed_with_size_and_hash(built, invoke):
    result = invoke("inspect", "--files")
    assert "onnx/stream2.onnx" in result.stdout
    assert "plans/onnxruntime-fp32-one/all.onnx" in result.stdout


def test_json_has_the_documented_keys(built, invoke):
    found = json.loads(invoke("inspect", "--json").stdout)
    assert set(found) == {
        *("deployment", "name", "written", "digest", "source", "spec", "input_size"),
        *("preprocessing", "labels", "parts", "artifacts", "plans", "steps", "integrity"),
        *("engines", "precision", "evidence", "signature", "missing_steps"),
    }
    assert found["integrity"] == {"ok": True, "missing": [], "changed": [], "foreign": []}
    assert found["missing_steps"] == ["verify", "bench"]
    assert found["parts"]["head"] == {
        "reads": ["y2", "d1"],
        "writes": "logits",
        "shape": [10],
        "blocks": 2,
        "macs": 55296,
    }


def test_only_fused(place_deployment, invoke):
    place_deployment("fused")
    text = " ".join(invoke("inspect").stdout.split())
    assert "accepts not exported yet" in text
    assert "no plans: nothing was built yet" in text
    assert "next parnet-deploy export digits" in text


@pytest.mark.parametrize(
    ("damage", "text"), [("change", "changed onnx/head.onnx"), ("remove", "missing onnx/head.onnx")]
)
def test_damage_is_shown_and_exit_3(built, invoke, damage, text):
    file = built / "onnx/head.onnx"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.unlink()
    if damage == "change":
        file.write_bytes(data)
    result = invoke("inspect")
    assert result.exit_code == 3
    assert f"✗ {text}" in result.stdout


def test_foreign_files_are_named(built, invoke):
    (built / "notes.txt").write_text("mine")
    result = invoke("inspect")
    assert result.exit_code == 0
    assert "not ours: notes.txt" in result.stdout


def test_an_edited_manifest_is_refused(built, invoke):
    manifest = built / "deployment.json"
    manifest.write_text(manifest.read_text().replace("silu", "relu"))
    result = invoke("inspect")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")


def reseal(root, change):
    path = root / "deployment.json"
    data = json.loads(path.read_bytes())
    del data["sha256"]
    change(data)
    path.write_bytes(seal(data))


def test_what_is_missing_is_unknown(built, images, invoke):
    def forget(data):
        data["source"], data["preprocessing"] = {}, None
        for plan in data["plans"].values():
            for key in set(plan) - {"step"}:
                del plan[key]

    reseal(built, forget)
    result = invoke("inspect")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for expected in (
        "10 classes, parameters unknown",
        "checkpoint unknown (unknown, unknown)",
        "weights unknown",
        "activation silu, unknown why",
        "images unknown",
        "onnxruntime-fp32-one unknown all unknown",
    ):
        assert expected in text
    result = invoke("run", str(images))
    assert result.exit_code == 1
    assert "got no preprocessing, expected how" in " ".join(result.output.split())


def test_a_file_that_was_removed_is_counted(built, invoke):
    with Deployment.edit(built) as txn:
        txn.remove("onnx/head.onnx")
    files = len(Deployment.open(built).steps["export"]["files"])
    result = invoke("inspect")
    assert result.exit_code == 0, result.output
    assert f"{files - 1} of {files}" in result.stdout


@pytest.mark.parametrize(
    ("field", "value"), [("crop_fraction", None), ("mean", ".."), ("height", 10**12), ("more", 1)]
)
def test_impossible_preprocessing_is_refused(built, images, invoke, field, value):
    reseal(built, lambda data: data["preprocessing"].update({field: value}))
    for args in (["inspect"], ["inspect", "--json"], ["run", str(images)]):
        result = invoke(*args)
        assert result.exit_code == 1
        message = result.stderr.splitlines()[-1] if "--json" not in args else result.output
        assert "preprocessing" in message
        assert "Build it again: parnet-deploy fuse" in " ".join(result.output.split())


def test_a_tiny_image_before_the_export_costs_nothing(place_deployment, invoke):
    path = place_deployment("fused")
    reseal(path, lambda data: data["preprocessing"].update(height=1, width=1))
    assert invoke("inspect").exit_code == 0


@pytest.mark.parametrize("streams", [2, 3, 4])
def test_the_graph_joins_each_fusion_to_the_next(streams):
    spec = ModelSpec(planes=(8,) * (streams + 1), num_blocks=(2,) * streams + (1,), num_classes=10)
    lines = _graph(spec).plain.splitlines()
    assert len(lines) == streams
    assert lines[0].startswith("image ─ stem0 ─┬─ stream0 ─ fusion0")
    assert lines[-1].endswith("head ─ logits")
    for upper, lower in itertools.pairwise(lines):
        assert lower.index("└") == upper.index("┬")
        end = lower.index("fusion" if "fusion" in lower else "head")
        assert end <= upper.index("┐") < end + len("fusion0")


def test_engines_and_evidence(built, invoke):
    text = " ".join(invoke("inspect").stdout.split())
    engine = Deployment.open(built).artifacts["plans/onnxruntime-fp32-one/all.onnx"]
    assert "engines of onnxruntime-fp32-one" in text
    assert f"cpu, all cores all all {bytes_text(engine['bytes'])} {engine['sha256'][:8]}" in text
    found = json.loads(invoke("inspect", "--json").stdout)
    (about,) = found["engines"]["onnxruntime-fp32-one"]["engines"]
    assert (about["bytes"], about["sha256"]) == (engine["bytes"], engine["sha256"])
    assert found["precision"] == {"onnxruntime-fp32-one": None}
    assert [row["step"] for row in found["evidence"]] == [
        *("fuse", "fuse", "export", "build:onnxruntime-fp32-one")
    ]
    assert all(row["passed"] and row["figures"]["error"] > 0 for row in found["evidence"])
    assert text.count("✓") == 2 + 1 + 4  # integrity, the default plan and its note, evidence


def test_a_real_verification_is_evidence(built, invoke):
    assert invoke("verify").exit_code == 0
    rows = json.loads(invoke("inspect", "--json").stdout)["evidence"]
    (verified,) = [row for row in rows if row["step"] == "verify"]
    assert verified["passed"] is True
    assert verified["plan"] == "onnxruntime-fp32-one"
    assert 0 < verified["figures"]["error"] < verified["figures"]["limit"] == 1e-4


def test_layers_of_float32_plans_are_told_in_one_line(built, invoke):
    assert "every layer of every plan is in float32" in invoke("inspect", "--layers").stdout


def test_diff_of_a_copy_is_identical(built, invoke):
    shutil.copytree(built, built.parent / "copy")
    result = invoke("inspect", "digits", "--diff", "copy")
    assert result.exit_code == 0
    assert "✓ identical" in result.stdout
    found = json.loads(invoke("inspect", "digits", "--diff", "copy", "--json").stdout)
    assert set(found) == {"first", "second", "identical", "differences"}
    assert (found["identical"], found["differences"]) == (True, [])
    assert found["first"]["digest"] == found["second"]["digest"]


def test_diff_lists_what_is_only_there(built, place_deployment, invoke):
    place_deployment("exported", "exported")
    result = invoke("inspect", "exported", "--diff", "digits")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for expected in (
        "plans: 1 + onnxruntime-fp32-one",
        "steps: 1 + build:onnxruntime-fp32-one",
        "+ plans/onnxruntime-fp32-one/build.json",
        "not identical: 6 added",
    ):
        assert expected in text
    back = json.loads(invoke("inspect", "digits", "--diff", "exported", "--json").stdout)
    assert not back["identical"]
    assert {difference["change"] for difference in back["differences"]} == {"removed"}


def test_diff_of_a_damaged_deployment_proves_nothing(built, invoke):
    shutil.copytree(built, built.parent / "copy")
    file = built.parent / "copy/onnx/head.onnx"
    file.write_bytes(file.read_bytes() + b"x")
    result = invoke("inspect", "digits", "--diff", "copy")
    assert result.exit_code == 3
    assert "✗ copy: changed onnx/head.onnx" in result.stdout
    assert "identical" not in result.stdout
    result = invoke("inspect", "digits", "--diff", "copy", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["identical"] is False


def test_diff_with_what_is_not_there(built, invoke):
    result = invoke("inspect", "digits", "--diff", "nothing")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert invoke("inspect", "digits", "--diff", "digits", "--layers").exit_code == 2
