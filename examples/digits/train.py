"""Train a small ParNet on handwritten digits and save it as the authors' releases are saved.

    python examples/digits/train.py [--epochs 12] [--out examples/digits/digits.pth.tar]

About half a minute on one CPU core. The images go through ``parnet_deploy.preprocess`` as PNG
files, so that training sees exactly what ``parnet-deploy run`` computes.
"""

from __future__ import annotations

import argparse
import copy
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

import make_images
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from parnet_deploy.export.model import ParNet
from parnet_deploy.preprocess import Preprocessing, load_image
from parnet_deploy.spec import ModelSpec

SPEC = ModelSpec(planes=(8, 16, 32, 64), num_blocks=(3, 3, 3, 1), num_classes=10)
PREPROCESSING = Preprocessing(
    height=32,
    width=32,
    mean=(make_images.MEAN,) * 3,
    std=(make_images.STD,) * 3,
    resize="stretch",
    crop_fraction=1.0,
    interpolation="bilinear",
)
SEED = 0
EPOCHS = 12
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
LABEL_SMOOTHING = 0.05
MAX_SHIFT_PIXELS = 2
EMA_DECAY = 0.9  # a run of 250 steps is too short for timm's 0.9998
DEFAULT_OUT = Path(__file__).resolve().parent / "digits.pth.tar"


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Images (N, 3, 32, 32), normalised, and their digits (N,)."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The model after the last step, its running average, and the mean loss of each epoch."""

    model: ParNet
    ema: ParNet
    optimizer: torch.optim.Optimizer
    losses: list[float]


def load_training() -> Examples:
    """Read the training half of the split."""
    pixels, targets = make_images.load_pixels()
    train, _ = make_images.split(targets)
    return _examples((make_images.encode_png(pixels[i]) for i in train), targets[train])


def load_shipped(name: str) -> Examples:
    """Read "eval", "noisy" or "calibration" as it ships under calibration/digits."""
    made = make_images.make_images()
    files = [path for path in made if path.startswith(f"{name}/")]
    return _examples((made[path] for path in files), [int(path.split("/")[1]) for path in files])


def train(
    examples: Examples, epochs: int, on_step: Callable[[float], None] = lambda loss: None
) -> Trained:
    """Train from scratch; ``on_step`` receives the loss of every step."""
    torch.manual_seed(SEED)
    model = ParNet(SPEC).train()  # torch's own initialisation trains well
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = steps_per_epoch(examples)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.25
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(examples.targets))
        total = 0.0
        for k in range(steps):
            batch = order[k * BATCH : (k + 1) * BATCH]
            shift = torch.randint(-MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS + 1, (2,)).tolist()
            images = examples.images[batch].roll(shift, (2, 3))
            loss = criterion(model(images), examples.targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            update_average(ema, model)
            total += loss.item()
            on_step(loss.item())
        losses.append(total / steps)
    return Trained(model=model.eval(), ema=ema, optimizer=optimizer, losses=losses)


def steps_per_epoch(examples: Examples) -> int:
    """Whole batches only: BatchNorm statistics of a rest of three images would be poor."""
    return max(1, len(examples.targets) // BATCH)


@torch.no_grad()
def update_average(ema: ParNet, model: ParNet) -> None:
    """Move the average towards the model: weights and BatchNorm statistics alike, as timm does."""
    for average, value in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - EMA_DECAY)
        else:
            average.copy_(value)


@torch.no_grad()
def count_correct(model: ParNet, examples: Examples) -> int:
    """How many images get their own digit as the largest logit."""
    return sum(
        int((model(images).argmax(1) == targets).sum())
        for images, targets in zip(
            examples.images.split(256), examples.targets.split(256), strict=True
        )
    )


def checkpoint(trained: Trained, epochs: int, accuracy_percent: float) -> dict[str, object]:
    """The dict that the authors' training script saves. The optimizer's state is left out: size."""
    side = PREPROCESSING.height
    args = argparse.Namespace(
        model="simplenet_repvgg",
        model_cfg="planes_8_16_32_64_num_blocks_3_3_3_1.yaml",
        dataset="scikit-learn load_digits",
        num_classes=SPEC.num_classes,
        input_size=[3, side, side],
        img_size=None,
        mean=list(PREPROCESSING.mean),
        std=list(PREPROCESSING.std),
        interpolation=PREPROCESSING.interpolation,
        crop_pct=PREPROCESSING.crop_fraction,
        crop_mode="squash",  # timm's name for stretching
        epochs=epochs,
        batch_size=BATCH,
        opt="adamw",
        sched="onecycle",
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        smoothing=LABEL_SMOOTHING,
        model_ema=True,
        model_ema_decay=EMA_DECAY,
        seed=SEED,
    )
    return {
        "epoch": epochs - 1,
        "arch": args.model,
        "state_dict": _released_names(trained.model),
        "optimizer": {
            "state": {},
            "param_groups": trained.optimizer.state_dict()["param_groups"],
        },
        "version": 2,
        "args": args,
        "state_dict_ema": _released_names(trained.ema),
        "metric": accuracy_percent,
    }


def main() -> None:
    """Train, report accuracy, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error("--epochs must be 1 or more")
    torch.set_num_threads(1)
    examples = load_training()
    with Progress() as progress:
        task = progress.add_task("Training", total=arguments.epochs * steps_per_epoch(examples))

        def show(loss: float) -> None:
            progress.update(task, advance=1, description=f"Training, loss {loss:.3f}")

        trained = train(examples, arguments.epochs, show)

    console = Console()
    accuracy_percent = 0.0
    for name in ("eval", "noisy"):
        held_out = load_shipped(name)
        count = len(held_out.targets)
        for weights, model in (("model", trained.model), ("EMA", trained.ema)):
            correct = count_correct(model, held_out)
            console.print(f"{name:6} {weights:6} {correct:4} of {count} = {correct / count:.2%}")
            if name == "eval":
                accuracy_percent = 100 * correct / count
    buffer = io.BytesIO()  # torch would put the file's name into the file
    torch.save(checkpoint(trained, arguments.epochs, accuracy_percent), buffer)
    arguments.out.write_bytes(buffer.getvalue())
    console.print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")


def _examples(files: Iterable[bytes], targets: Iterable[int]) -> Examples:
    images = np.stack([load_image(content, PREPROCESSING) for content in files])
    return Examples(images=torch.from_numpy(images), targets=torch.tensor(list(targets)))


def _released_names(model: ParNet) -> dict[str, Tensor]:
    return {f"module.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    main()
