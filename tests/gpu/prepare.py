"""Make what the GPU tests cannot make on a machine without PyTorch: ``make gpu-fixtures``.

Writes ``tests/gpu/prepared`` (git ignores it): the digits network, fused, exported and calibrated,
and its float32 answers to every image of the evaluation set. Take it along to the GPU machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PREPARED = Path(__file__).parent / "prepared"
ANSWERS = "answers.npz"


def main() -> None:
    """Fuse, export, calibrate, run on the CPU, and keep what is needed."""
    # Not at the top: the tests take the names from here where there is no PyTorch.
    from parnet_deploy import Runtime
    from parnet_deploy.builder.build import build_to_deployment
    from parnet_deploy.builder.options import BuildOptions
    from parnet_deploy.deployment import Deployment
    from parnet_deploy.export.export_step import export_to_deployment
    from parnet_deploy.export.fuse_step import fuse_to_deployment
    from parnet_deploy.image_files import find_images
    from parnet_deploy.preprocess import Preprocessing, load_image

    shutil.rmtree(PREPARED, ignore_errors=True)
    digits = PREPARED / "digits"
    fuse_to_deployment(ROOT / "examples/digits/digits.pth.tar", digits)
    export_to_deployment(digits)
    preprocessing = Preprocessing.from_json(Deployment.open(digits).preprocessing or {})
    files = find_images([ROOT / "calibration/digits/eval"])
    images = np.stack([load_image(file, preprocessing) for file in files])
    work = PREPARED / "work"
    shutil.copytree(digits, work)
    build_to_deployment(work, BuildOptions(backend="onnxruntime", placement="one", max_batch=64))
    with Runtime.open(work) as runtime:
        logits = np.concatenate([runtime(images[i : i + 50]) for i in range(0, len(images), 50)])
    shutil.rmtree(work)
    np.savez(PREPARED / ANSWERS, images=images, logits=logits)
    data = ROOT / "calibration/digits"
    command = [sys.executable, "-m", "parnet_deploy", "calibrate", str(digits)]
    command += [str(data / "calibration"), "--eval", str(data / "eval")]
    command += ["--noisy", str(data / "noisy"), "--precision", "fp16", "--precision", "int8-trt"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
