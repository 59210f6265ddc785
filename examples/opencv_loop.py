"""Classify what a camera sees, frame by frame.

    python examples/opencv_loop.py engines/digits 0             # the first camera
    python examples/opencv_loop.py engines/digits video.mp4
    python examples/opencv_loop.py engines/digits photos/       # a folder of images instead

Needs OpenCV, ``pip install opencv-python-headless``, and ``parnet-deploy[cpu,images]``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from parnet_deploy import Runtime
from parnet_deploy.classify import softmax
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import InputError, ParnetDeployError
from parnet_deploy.preprocess import Preprocessing, find_images, prepare_pixels


def main(arguments: list[str] | None = None) -> int:
    """Open the deployment, read frames until they end, print one line each."""
    parser = argparse.ArgumentParser(description="Classify frames of a camera, video or folder.")
    parser.add_argument("deployment")
    parser.add_argument("source", help="number of a camera, video file, or folder of images")
    parser.add_argument("--frames", type=int, help="stop after this many")
    options = parser.parse_args(arguments)
    try:
        watch(options.deployment, options.source, options.frames)
    except ParnetDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def watch(path: str, source: str, frames: int | None) -> None:
    """The loop. Input and logits are made once: ``run_into`` only gets their addresses."""
    deployment = Deployment.open(path)
    if deployment.preprocessing is None:
        raise InputError(f"deployment {path}: got no preprocessing. Run: parnet-deploy fuse.")
    preprocessing = Preprocessing.from_json(deployment.preprocessing)
    with Runtime.open(path) as runtime, closing(read_frames(source)) as found:
        classes = runtime.spec.num_classes
        names = deployment.labels or tuple(map(str, range(classes)))
        logits = np.empty((1, classes), np.float32)
        for number, bgr in enumerate(islice(found, frames)):
            start = time.perf_counter()
            image = prepare_pixels(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), preprocessing)
            prepared = time.perf_counter()
            runtime.run_into(image.ctypes.data, logits.ctypes.data, n=1, size=image.shape[1:])
            answered = time.perf_counter()
            best = int(logits.argmax())
            print(
                f"{number}: {names[best]} ({softmax(logits)[0, best]:.0%})  "
                f"prepare {1e3 * (prepared - start):.2f} ms, "
                f"network {1e3 * (answered - prepared):.2f} ms"
            )


def read_frames(source: str) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) in BGR, as OpenCV gives them.

    Raises:
        InputError: There is no such camera, video or folder.
    """
    if Path(source).is_dir():
        for file in find_images([source]):
            frame = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if frame is None:
                raise InputError(f"image {file}: OpenCV cannot read it. Leave it out.")
            yield frame
        return
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    try:
        if not capture.isOpened():
            raise InputError(
                f"video {source}: got nothing that OpenCV can open, expected the number of a "
                "camera, a video file or a folder of images. Check the name."
            )
        while (frame := capture.read()[1]) is not None:
            yield frame
    finally:
        capture.release()


if __name__ == "__main__":
    sys.exit(main())
