"""The verb run: answers, accuracy, and files that cannot be read."""

from __future__ import annotations

import json
import shutil

import pytest


def test_accuracy_where_folders_are_named_like_labels(built, images, invoke):
    result = invoke("run", images)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == [str(images / "0/0078.png"), "0", "96.0", "%"]
    assert "accuracy  20 of 20 right = 100.00 % (folder = label)" in result.stdout
    assert "images    20 images answered by onnxruntime, plan onnxruntime-fp32-one" in result.stdout


def test_few_images_get_bars(built, images, invoke):
    result = invoke("run", images / "3", "--top", "2")
    lines = result.stdout.splitlines()
    assert lines[0] == str(sorted((images / "3").iterdir())[0])
    assert lines[1].split()[0] == "3"
    assert "█" in lines[1]
    assert len([line for line in lines if line.startswith("  ")]) == 4


def test_json_has_the_documented_keys(built, images, invoke):
    found = json.loads(invoke("run", images, "--json", "--top", "3").stdout)
    assert set(found) == {"deployment", "plan", "backend", "answers", "accuracy", "unreadable"}
    assert found["accuracy"] == {"right": 20, "total": 20, "share": 1.0}
    first = found["answers"][0]
    assert set(first) == {"image", "top"}
    assert [set(entry) for entry in first["top"]] == [{"class", "label", "probability"}] * 3
    probabilities = [entry["probability"] for entry in first["top"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_a_batch_gives_the_same_answers(built, images, invoke):
    one, eight = (
        json.loads(invoke("run", images, "--json", "--batch", batch).stdout)["answers"]
        for batch in (1, 8)
    )
    for a, b in zip(one, eight, strict=True):
        assert a["image"] == b["image"]
        assert a["top"][0]["class"] == b["top"][0]["class"]
        assert a["top"][0]["probability"] == pytest.approx(b["top"][0]["probability"], abs=1e-5)


def test_no_accuracy_without_such_folders(built, images, workplace, invoke):
    shutil.copy(next((images / "3").iterdir()), workplace / "mine.png")
    result = invoke("run", "mine.png", "--json")
    assert json.loads(result.stdout)["accuracy"] is None
    assert "accuracy" not in invoke("run", "mine.png").stdout


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--skip-unreadable"], 0)])
def test_an_unreadable_file_is_named_and_the_others_are_answered(
    built, images, invoke, options, code
):
    (images / "3/bad.png").write_text("no image")
    result = invoke("run", images, *options)
    assert result.exit_code == code
    assert "unreadable  1, listed below" in result.stdout
    assert "accuracy    20 of 20" in result.stdout
    assert f"unreadable: image {images / '3/bad.png'}: got a file that is no image" in result.stderr
    found = json.loads(invoke("run", images, "--json", *options).stdout)
    assert len(found["answers"]) == 20
    assert [entry["image"] for entry in found["unreadable"]] == [str(images / "3/bad.png")]


def test_if_no_file_can_be_read_it_fails_always(built, workplace, invoke):
    (workplace / "bad.png").touch()
    result = invoke("run", "bad.png", "--skip-unreadable")
    assert result.exit_code == 1
    assert "0 images answered" in result.stdout
    assert "unreadable: image bad.png: got an empty file" in result.stderr


def test_a_folder_without_images(built, workplace, invoke):
    (workplace / "none").mkdir()
    result = invoke("run", "none")
    assert result.exit_code == 1
    assert "error: images in none: got none, expected a file ending in" in result.stderr


def test_a_path_that_does_not_exist(built, invoke):
    result = invoke("run", "none.png")
    assert result.exit_code == 1
    assert "error: images none.png: got no such file" in result.stderr


def test_no_image_named_is_usage(built, invoke):
    assert invoke("run").exit_code == 2


def test_a_batch_over_the_maximum(built, images, invoke):
    result = invoke("run", images, "--batch", "9")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "expected" in result.stderr.splitlines()[-1]


def test_unknown_plan_and_backend(built, images, invoke):
    result = invoke("run", images, "--plan", "other")
    assert result.exit_code == 1
    assert "expected plan other" in result.stderr
    result = invoke("run", images, "--backend", "onnxrutime")
    assert result.exit_code == 1
    assert "Did you mean onnxruntime?" in result.stderr


def test_it_builds_what_is_missing(place_deployment, images, invoke):
    place_deployment("exported")
    result = invoke("run", images)
    assert result.exit_code == 0
    assert "no engines yet: running build first" in result.stderr
    assert "built plan onnxruntime-fp32-auto" in result.stderr


def test_without_pillow_it_names_the_pip_command(built, images, run_process):
    code = (
        "import sys; sys.modules['PIL'] = None; sys.argv = ['p', 'run', '-q', 'images'];"
        "from parnet_deploy.cli.main import main; main()"
    )
    done = run_process("-c", code)
    assert done.returncode == 1
    assert done.stderr == (
        "error: package pillow: not installed. Run: pip install 'parnet-deploy[images]'.\n"
    )


def test_without_onnxruntime_it_names_the_pip_command(built, images, run_process):
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.argv = ['p', 'run', '-q', 'images'];"
        "from parnet_deploy.cli.main import main; main()"
    )
    done = run_process("-c", code)
    assert done.returncode == 1
    assert "Run: pip install 'parnet-deploy[cpu]'." in done.stderr
    assert "Traceback" not in done.stderr


def test_run_needs_no_torch(built, images, run_process):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None;"
        "sys.argv = ['p', 'run', 'images', '--json'];"
        "from parnet_deploy.cli.main import main; main()"
    )
    done = run_process("-c", code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"]["right"] == 20
