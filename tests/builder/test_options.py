from __future__ import annotations

from dataclasses import fields, replace

import pytest

from parnet_deploy.builder.options import BuildOptions
from parnet_deploy.errors import SpecError


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_batch": 0}, "max batch: got 0"),
        ({"threads": 0}, "threads: got 0"),
        ({"optimization_level": 6}, "optimization level: got 6, expected 0 to 5"),
        ({"workspace_mib": 0}, "workspace MiB: got 0"),
        ({"hardware_compatibility": "all"}, "hardware compatibility: got 'all', expected one of"),
        ({"aux_streams": -1}, "aux streams: got -1"),
        (
            {"aux_streams": 2, "placement": "streams"},
            "aux streams: got 2 with placement streams, expected placement auto or one-aux",
        ),
    ],
)
def test_impossible_options(options, text) -> None:
    with pytest.raises(SpecError, match=text):
        BuildOptions(**options)


@pytest.mark.parametrize(
    ("option", "backend", "accepted"),
    [
        ({"optimization_level": 5}, "onnxruntime", "tensorrt"),
        ({"workspace_mib": 64}, "fake", "tensorrt"),
        ({"hardware_compatibility": "ampere_plus"}, "onnxruntime-cuda", "tensorrt"),
        ({"aux_streams": 1}, "onnxruntime-cuda", "fake"),
        ({"threads": 1}, "tensorrt", "onnxruntime"),
    ],
)
def test_what_a_backend_would_not_heed_is_refused(option, backend, accepted) -> None:
    (name,) = option
    with pytest.raises(SpecError, match=f"with backend {backend}, expected backend .*{accepted}"):
        BuildOptions(backend=backend, **option).check_backend()
    with pytest.raises(SpecError, match=f"Leave out --{name.replace('_', '-')}"):
        BuildOptions(backend=backend, **option).check_backend()
    BuildOptions(backend=accepted, **option).check_backend()


def test_tensorrt_gets_what_was_given_and_its_own_defaults() -> None:
    options = BuildOptions(optimization_level=5, workspace_mib=64).tensorrt(2)
    assert (options.optimization_level, options.workspace_mib, options.aux_streams) == (5, 64, 2)
    assert BuildOptions().tensorrt(0).hardware_compatibility == "none"


def test_every_option_but_rebuild_shapes_the_key() -> None:
    base = BuildOptions()
    assert replace(base, rebuild=True).to_json() == base.to_json()
    names = {field.name for field in fields(BuildOptions)}
    assert set(base.to_json()) == names - {"rebuild"}


def test_the_first_gpu_is_meant_where_none_is_named() -> None:
    assert BuildOptions().devices == (0,)
    assert BuildOptions(gpus=(2, 1)).devices == (2, 1)
