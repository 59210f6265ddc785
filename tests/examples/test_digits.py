"""The demo model and its data: what ships is what the scripts make, and it works."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("PIL")

from parnet_deploy.export.model import ParNet  # noqa: E402
from parnet_deploy.preprocess import (  # noqa: E402
    Preprocessing,
    find_images,
    load_image,
    read_labels,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits"
DATA = ROOT / "calibration" / "digits"


@pytest.fixture(scope="module")
def train() -> Iterator[ModuleType]:
    """The training script, as Python finds it when it is run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        import train

        yield train
        for name in ("train", "make_images"):
            del sys.modules[name]
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shipped() -> dict[str, object]:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(EXAMPLE / "digits.pth.tar", weights_only=True)


def network(train: ModuleType, state: dict[str, torch.Tensor]) -> ParNet:
    model = ParNet(train.SPEC)
    model.load_state_dict({name.removeprefix("module."): v for name, v in state.items()})
    return model


def test_the_data_set_remakes_to_the_same_bytes(train) -> None:
    made = train.make_images.make_images()
    there = {str(p.relative_to(DATA)): p.read_bytes() for p in DATA.rglob("*.png")}
    assert made == there
    counts = {name: sum(path.startswith(f"{name}/") for path in made) for name in ("eval", "noisy")}
    assert counts == {"eval": 450, "noisy": 1350}
    assert len(made) == 450 + 1350 + 256


def test_the_held_out_images_were_not_trained_on(train) -> None:
    made = train.make_images.make_images()
    numbers = {name: set() for name in ("eval", "noisy", "calibration")}
    for path in made:
        numbers[path.split("/")[0]].add(int(Path(path).stem.split("-")[0]))
    training, held_out = map(set, train.make_images.split(train.make_images.load_pixels()[1]))
    assert numbers["eval"] == numbers["noisy"] == held_out
    assert numbers["calibration"] < training
    assert not training & held_out


def test_pictures_show_the_digits(train) -> None:
    """Decode with Pillow, which had no part in writing them."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for path in sorted((DATA / "eval").rglob("*.png"))[::9]:
        pixels = np.asarray(Image.open(path))
        index = int(path.stem)
        assert pixels.shape == (8, 8)
        assert np.abs(pixels * (16 / 255) - digits.images[index]).max() < 0.04
        assert int(path.parent.name) == digits.target[index]


def test_noise_is_as_strong_as_said(train) -> None:
    grey = np.full((200, 8, 8), 128, np.uint8)
    noisy = train.make_images.add_noise(grey, np.random.RandomState(1)).astype(float)
    # 0.45 * 0.35 = 0.1575 of full scale; clipping at 3.2 sigma takes next to nothing
    assert noisy.std() / 255 == pytest.approx(0.1575, rel=0.03)


def test_checkpoint_has_the_release_layout(train, shipped) -> None:
    assert set(shipped) == {
        *("epoch", "arch", "state_dict", "optimizer", "version"),
        *("args", "state_dict_ema", "metric"),
    }
    assert (EXAMPLE / "digits.pth.tar").stat().st_size < 1_000_000
    names = {f"module.{name}" for name in ParNet(train.SPEC).state_dict()}
    assert set(shipped["state_dict"]) == set(shipped["state_dict_ema"]) == names
    assert any(
        not torch.equal(shipped["state_dict"][name], shipped["state_dict_ema"][name])
        for name in names
    )
    args = vars(shipped["args"])
    assert args["input_size"] == [3, 32, 32]
    assert args["num_classes"] == len(read_labels(EXAMPLE / "labels.txt")) == 10
    assert Preprocessing.from_timm(args) == train.PREPROCESSING


def test_a_wrongly_guessed_activation_shows_in_the_accuracy(train, shipped) -> None:
    """These are SiLU weights although no identity-BatchNorm mean is negative."""
    means = [
        value.min().item()
        for name, value in shipped["state_dict_ema"].items()
        if name.endswith("rbr_identity.running_mean")
    ]
    assert min(means) > 0
    wrong = ParNet(dataclasses.replace(train.SPEC, activation="relu"))
    wrong.load_state_dict(network(train, shipped["state_dict_ema"]).state_dict())
    assert train.count_correct(wrong, train.load_shipped("eval")) < 360  # 302 of 450


@pytest.mark.parametrize(
    ("weights", "folder", "least"),
    [
        ("state_dict", "eval", 444),  # README: 446
        ("state_dict_ema", "eval", 444),  # README: 447
        ("state_dict", "noisy", 1215),  # README: 1224
        ("state_dict_ema", "noisy", 1215),  # README: 1225
    ],
)
def test_accuracy_on_the_shipped_images(train, shipped, weights, folder, least) -> None:
    paths = find_images([DATA / folder])
    images = torch.from_numpy(np.stack([load_image(path, train.PREPROCESSING) for path in paths]))
    targets = torch.tensor([int(path.parent.name) for path in paths])
    model = network(train, shipped[weights])
    correct = train.count_correct(model, train.Examples(images=images, targets=targets))
    assert least <= correct < len(paths)  # not saturated: damage shows


def test_training_learns_and_averages(train, tmp_path) -> None:
    everything = train.load_training()
    examples = train.Examples(images=everything.images[::4], targets=everything.targets[::4])
    seen: list[float] = []
    trained = train.train(examples, 2, seen.append)
    assert len(seen) == 2 * train.steps_per_epoch(examples)
    assert trained.losses[-1] < trained.losses[0]
    assert not trained.model.training
    assert not trained.ema.training
    moved = dict(trained.model.named_parameters())
    assert any(
        not torch.equal(value, moved[name]) for name, value in trained.ema.named_parameters()
    )

    path = tmp_path / "tiny.pth.tar"
    torch.save(train.checkpoint(trained, 2, 12.5), path)
    with torch.serialization.safe_globals([argparse.Namespace]):
        loaded = torch.load(path, weights_only=True)
    assert loaded["args"].epochs == 2
    reloaded = network(train, loaded["state_dict"])
    with torch.no_grad():
        image = examples.images[:3]
        assert torch.equal(reloaded(image), trained.model(image))


def test_average_moves_by_the_decay(train) -> None:
    model, ema = ParNet(train.SPEC), ParNet(train.SPEC)
    for value in model.state_dict().values():
        value.fill_(3)
    for value in ema.state_dict().values():
        value.fill_(1)
    train.update_average(ema, model)
    expected = 1 + 2 * (1 - train.EMA_DECAY)
    for name, value in ema.state_dict().items():
        want = 3 if name.endswith("num_batches_tracked") else expected
        assert value.double().numpy() == pytest.approx(want)
