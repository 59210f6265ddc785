"""Classifying files: probabilities, accuracy, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from parnet_deploy.classify import Answer, Unreadable, classify, folder_accuracy, softmax
from parnet_deploy.preprocess import Preprocessing

SMALL = Preprocessing(height=4, width=4, crop_fraction=1.0, mean=(0, 0, 0), std=(1, 1, 1))


def brightness(images):
    """Logits of a "network" of two classes: dark and bright."""
    mean = images.mean((1, 2, 3))
    return np.stack([1 - mean, mean], axis=1).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    paths = []
    for i, level in enumerate((0, 255, 0, 255, 255)):
        path = tmp_path / ("bright" if level else "dark") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (level,) * 3).save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_one_item_for_each_path_in_order(files, batch):
    files[1].write_text("no image")
    done = []
    found = list(classify(brightness, files, SMALL, batch=batch, on_image=done.append))
    assert [item.path for item in found] == files
    assert [isinstance(item, Unreadable) for item in found] == [False, True, False, False, False]
    assert [item.top(1)[0][0] for item in found if isinstance(item, Answer)] == [0, 0, 1, 1]
    assert done == [1, 2, 3, 4, 5]


def test_a_batch_of_which_nothing_can_be_read_never_reaches_the_network(tmp_path):
    path = tmp_path / "bad.png"
    path.write_text("no image")
    found = list(classify(lambda images: pytest.fail("called"), [path, path], SMALL, batch=2))
    assert [item.path for item in found] == [path, path]


def test_folder_accuracy(files):
    answers = [item for item in classify(brightness, files, SMALL) if isinstance(item, Answer)]
    found = folder_accuracy(answers, ("dark", "bright"))
    assert found is not None
    assert (found.right, found.total, found.share) == (5, 5, 1.0)
    swapped = folder_accuracy(answers, ("bright", "dark"))
    assert swapped is not None
    assert swapped.right == 0


@pytest.mark.parametrize("labels", [("dark", "light"), ("0", "1")])
def test_no_accuracy_if_one_folder_is_no_label(files, labels):
    answers = [item for item in classify(brightness, files, SMALL) if isinstance(item, Answer)]
    assert folder_accuracy(answers, labels) is None
    assert folder_accuracy([], labels) is None


def test_equal_probabilities_keep_the_order_of_classes():
    answer = Answer(path=Path("x"), probabilities=np.full(4, 0.25))
    assert [k for k, _ in answer.top(3)] == [0, 1, 2]


@given(arrays(np.float32, (3, 7), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_softmax_sums_to_one_and_keeps_the_best(logits):
    found = softmax(logits)
    assert np.allclose(found.sum(-1), 1)
    rows = np.arange(3)
    assert (found[rows, logits.argmax(-1)] == found.max(-1)).all()
