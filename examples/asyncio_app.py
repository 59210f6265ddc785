"""Answer images from asyncio: a bounded number in flight, a deadline for each, stopped by Ctrl-C.

    python examples/asyncio_app.py engines/digits photos/ [--in-flight 4] [--deadline-ms 100]

The event loop never computes: files are read in its threads, engines run in the runtime's. Needs
``parnet-deploy[cpu,images]``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parnet_deploy import Runtime
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import InputError, ParnetDeployError
from parnet_deploy.preprocess import Preprocessing, find_images, load_image


@dataclass
class Tally:
    """What became of the images so far; it counts also when the work is cancelled."""

    answered: int = 0
    late: int = 0


async def answer(runtime: Runtime, image: np.ndarray, deadline_s: float) -> np.ndarray:
    """Logits (1, K) of an image (3, H, W).

    When the deadline passes or the task is cancelled, a call that waits for its turn is dropped,
    and one that runs ends unheard; the runtime holds on to the image until then.

    Raises:
        asyncio.TimeoutError: The deadline has passed.
        InputError: The image is refused.
    """
    return await asyncio.wait_for(asyncio.wrap_future(runtime.submit(image[None])), deadline_s)


async def answer_all(
    runtime: Runtime,
    paths: Iterable[Path],
    preprocessing: Preprocessing,
    tally: Tally,
    *,
    in_flight: int = 4,
    deadline_s: float = 0.1,
    on_answer: Callable[[Path, int | None], object] = lambda path, label: None,
) -> None:
    """Read and answer every image. ``in_flight`` workers take one after the other.

    Args:
        runtime: Open, and closed by the caller.
        paths: Image files; asked for one more only when a worker is free.
        preprocessing: Of the deployment.
        tally: Counted up.
        in_flight: How many images are read or computed at the same time.
        deadline_s: For each image, once it is read.
        on_answer: Called with the file and the likeliest class; None: too late.
    """
    left = iter(paths)

    async def work() -> None:
        for path in left:
            image = await asyncio.to_thread(load_image, path, preprocessing)
            try:
                logits = await answer(runtime, image, deadline_s)
            except asyncio.TimeoutError:
                tally.late += 1
                on_answer(path, None)
            else:
                tally.answered += 1
                on_answer(path, int(logits.argmax()))

    workers = [asyncio.create_task(work()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*workers)
    finally:  # one has failed, or somebody has cancelled us: no worker outlives this call
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def main(arguments: list[str] | None = None) -> int:
    """Open the deployment, answer the images, say what became of them."""
    parser = argparse.ArgumentParser(description="Answer images from asyncio.")
    parser.add_argument("deployment")
    parser.add_argument("images", nargs="+", help="files and folders")
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--deadline-ms", type=float, default=100.0)
    options = parser.parse_args(arguments)
    tally = Tally()
    try:
        deployment = Deployment.open(options.deployment)
        if deployment.preprocessing is None:
            raise InputError(f"deployment {options.deployment}: got no preprocessing.")
        names = deployment.labels

        def say(path: Path, label: int | None) -> None:
            known = label if names is None or label is None else names[label]
            print(f"{path}: {'too late' if label is None else known}")

        with Runtime.open(options.deployment, slots=2) as runtime:
            asyncio.run(
                answer_all(
                    runtime,
                    find_images(options.images),
                    Preprocessing.from_json(deployment.preprocessing),
                    tally,
                    in_flight=options.in_flight,
                    deadline_s=options.deadline_ms / 1e3,
                    on_answer=say,
                )
            )
    except KeyboardInterrupt:
        print("stopped")
    except ParnetDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{tally.answered} answered, {tally.late} too late")
    return 0


if __name__ == "__main__":
    sys.exit(main())
