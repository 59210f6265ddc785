"""The verb export-triton."""

from __future__ import annotations

import json

import pytest


def test_it_says_what_was_written_and_what_to_do_next(built, invoke, workplace):
    result = invoke("export-triton", "--to", "models")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "digits exported, in models/digits" in text
    assert "inputs image or encoded_image, batch up to 8" in text
    assert f"next tritonserver --model-repository={workplace / 'models'}" in text
    assert (workplace / "models/digits/config.pbtxt").is_file()
    assert "unchanged, nothing to do" in invoke("export-triton", "--to", "models").stdout


def test_json_has_the_documented_keys(built, invoke):
    found = json.loads(invoke("export-triton", "digits", "--to", "models", "--json").stdout)
    assert set(found) == {"deployment", "name", "model", "skipped", "report", "kserve"}
    report = {"name", "kind", "plan", "backend", "precision", "max_batch", "inputs", "files"}
    assert set(found["report"]) == report
    assert found["kserve"] is None


def test_missing_steps_are_run_with_one_engine_where_that_is_needed(place_deployment, invoke):
    place_deployment("exported")
    result = invoke("export-triton", "--to", "models", "--kind", "onnxruntime")
    assert result.exit_code == 0
    assert "no engines yet: running build first" in result.stderr
    assert "onnxruntime-fp32-one" in result.stdout


def test_kserve_file(built, invoke, workplace):
    options = ["--kserve", "k8s/digits.yaml", "--storage-uri", "s3://bucket/models"]
    result = invoke("export-triton", "--to", "models", *options)
    assert result.exit_code == 0
    assert "kubectl apply -f k8s/digits.yaml" in result.stdout
    assert "upload  what is in models, to s3://bucket/models" in result.stdout
    own = ["--kserve-server", "parnet-deploy", "--image", "registry/ours:1"]
    result = invoke("export-triton", "--to", "models", *options, *own)
    assert "what is in engines/digits, to s3://bucket/models" in result.stdout
    invoke("export-triton", "--to", "models", *options)
    assert 'storageUri: "s3://bucket/models"' in (workplace / "k8s/digits.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--kserve", "x.yaml"], 2, "--kserve needs --storage-uri"),
        (["--storage-uri", "s3://x/y"], 2, "are for --kserve FILE"),
        (["--kserve", "x.yaml", "--storage-uri", "nowhere"], 1, "storage URI: got 'nowhere'"),
        (
            ["--kserve", "x", "--storage-uri", "s3://x/y", "--kserve-server", "parnet-deploy"],
            2,
            "Add --image IMAGE.",
        ),
        (["--plan", "other"], 1, "expected plan other"),
    ],
)
def test_a_refusal_writes_nothing(built, invoke, snapshot, options, code, text):
    before = snapshot()
    result = invoke("export-triton", "--to", "models", *options)
    assert result.exit_code == code
    assert text in result.stderr
    assert snapshot() == before
