"""``InferenceService`` on real deployments of small networks."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.service import InferenceService
from tests.runtime.runtime_toys import images, reference
from tests.serve.service_toys import SPEC, arrived, ask, image_input, publish, run


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("engines") / "toy")


def test_an_image_is_answered_with_its_logits(toy):
    async def main():
        async with InferenceService([ModelOptions(path=toy)]) as service:
            return await service.infer(ask(image_input(images(SPEC)), id="7"), arrived())

    response = run(main())
    assert (response.model, response.version, response.id) == ("toy", "1", "7")
    (output,) = response.outputs
    assert (output.name, output.datatype, output.shape) == ("logits", "FP32", (1, 4))
    assert np.allclose(output.data, reference(SPEC, images(SPEC)), rtol=1e-5, atol=1e-6)
    assert response.timings.batch == 1
    assert response.timings.infer_s > 0
