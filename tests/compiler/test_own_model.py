"""A user's own model, from the factory with weights of its own to the changed weights."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.compiler.test_cli import call
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import verify
from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError

FACTORY = """\
from dataclasses import dataclass

import timm
import torch

@dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vit = timm.create_model(
            "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3,
            num_classes=4)
        self.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3,
                               "crop_pct": 1.0}

    def forward(self, x):
        features = self.vit.forward_features(x)
        return Output(self.vit.forward_head(features), features + 1)

def net():
    model = Net()
    model.load_state_dict(torch.load("own.pth"))
    return model
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder with the factory and pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vitq_own_net.py").write_text(FACTORY)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    np.save("x.npy", pixels)
    yield tmp_path
    sys.modules.pop("vitq_own_net", None)


def test_from_the_factory_to_changed_weights(
    here: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(here))
    import_timm()
    from vitq_own_net import Net  # type: ignore[import-not-found]

    torch.manual_seed(0)
    state = Net().state_dict()
    torch.save(state, "own.pth")
    torch.save({"model": state, "model_ema": state}, "given.pth")
    options = QuantizeOptions(
        model="vitq_own_net:net", weights=here / "given.pth", calib="x.npy", artifacts=here / "out"
    )
    artifact = quantize(options)
    export(artifact)
    folder = compile_model(artifact.folder, CompileOptions())
    with caplog.at_level(logging.INFO):
        assert all(check.different == 0 for check in verify(folder, "x.npy", 4))
        rows = {row.name: row for row in evaluate(folder, "x.npy")}
    assert rows["library"].mean_cosine > 0.98
    assert "changed since quantize" not in caplog.text
    torch.save({"model": {k: v * 2 for k, v in state.items()}}, "given.pth")
    with caplog.at_level(logging.WARNING):
        assert all(check.different == 0 for check in verify(folder, "x.npy", 4))
    assert "given.pth changed since quantize: this library is of what it was" in caplog.text
    with pytest.raises(VitqError, match=r"given\.pth changed since quantize.*run quantize, export"):
        evaluate(folder, "x.npy")
    quantize(options)
    with pytest.raises(
        VitqError, match=r"compiled from another quantized\.saf.*run export and comp"
    ):
        verify(folder, "x.npy", 4)
    with pytest.raises(VitqError, match=r"model\.onnx is of an earlier quantize: run export first"):
        compile_model(artifact.folder, CompileOptions())


def test_what_the_users_code_prints_is_not_the_answer(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = FACTORY.replace('model.load_state_dict(torch.load("own.pth"))', "print('built')")
    loud = loud.replace("        features = self", "        print('seen')\n        features = self")
    Path("vitq_own_net.py").write_text("print('imported')\n" + loud)
    arguments = ["quantize", "--model", "vitq_own_net:net", "--random-weights", "0", "--json"]
    arguments += ["--calib", "x.npy", "--method", "minmax", "--artifacts", "art"]
    assert call(arguments, monkeypatch) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["provenance"]["model"] == "vitq_own_net:net"
    assert all(word in captured.err for word in ("imported", "built", "seen"))
