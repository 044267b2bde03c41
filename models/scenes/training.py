"""Train a model of scenes: what the segmenter and the detector share.

Scenes are drawn once; each step takes some of them with their colours changed (channels in another
order, inverted), which costs nothing and leaves masks and boxes as they are. The weights kept are
the moving average after the last step. The held-out scenes are looked at once, after training.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vitq.models.digits_vit.data import normalize
from vitq.models.digits_vit.train import decayed_groups, learning_rate_factor
from vitq.models.scenes.data import TRAIN_SEED, Scenes, make_scenes
from vitq.numerics.files import write_atomically

logger = logging.getLogger(__name__)

Loss = Callable[[nn.Module, torch.Tensor, Scenes, np.ndarray], torch.Tensor]
"""(model, normalized pictures, scenes, which of them) -> a number."""
Measure = Callable[[nn.Module], dict[str, float]]
"""Of a trained model on the held-out scenes: name -> figure."""


@dataclass(frozen=True)
class SceneConfig:
    """The recipe."""

    seed: int = 0
    scenes: int = 8000
    steps: int = 3000
    warmup_steps: int = 150
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.995
    clip: float = 1.0


def recolored(images: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Put the channels of each picture (B, 3, H, W) in another order, and invert half of them."""
    order = np.stack([random.permutation(3) for _ in images])
    mixed = np.take_along_axis(images, order[:, :, None, None], axis=1)
    inverted = random.randint(2, size=len(images)).astype(bool)
    mixed[inverted] = 255 - mixed[inverted]
    return mixed


def train(build: Callable[[], nn.Module], loss: Loss, config: SceneConfig) -> nn.Module:
    """Train from nothing; return the averaged model in eval mode."""
    torch.manual_seed(config.seed)
    random = np.random.RandomState(config.seed)
    scenes = make_scenes(config.scenes, TRAIN_SEED, is_training=True)
    model = build().train()
    optimizer = torch.optim.AdamW(
        decayed_groups(model, config.weight_decay), lr=config.learning_rate
    )
    schedule = LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config.warmup_steps, config.steps)
    )
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    bar = tqdm(range(config.steps), mininterval=5)
    for _ in bar:
        chosen = random.randint(len(scenes.images), size=config.batch_size)
        x = torch.from_numpy(normalize(recolored(scenes.images[chosen], random)))
        value = loss(model, x, scenes, chosen)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        bar.set_postfix(loss=f"{float(value.detach()):.3f}")
    return averaged.module.eval()


def train_and_save(
    build: Callable[[], nn.Module],
    loss: Loss,
    measure: Measure,
    checkpoint: Path,
    config: SceneConfig,
    argv: list[str] | None,
) -> None:
    """Parse the command line, train, measure, write.

    Args:
        build: returns the model with random weights.
        loss: of a batch.
        measure: on the held-out scenes.
        checkpoint: where to write unless ``--output`` says otherwise.
        config: the recipe.
        argv: the command line's arguments; None for the process's own.
    """
    parser = argparse.ArgumentParser(description=f"Train {checkpoint.stem} on one CPU core.")
    parser.add_argument("--output", type=Path, default=checkpoint, help="checkpoint to write")
    parser.add_argument("--seed", type=int, default=config.seed)
    parser.add_argument("--steps", type=int, default=config.steps)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # One thread: the order of float additions, and so the result, depends on the thread count.
    torch.set_num_threads(1)
    config = SceneConfig(**{**asdict(config), "seed": args.seed, "steps": args.steps})
    start = time.perf_counter()
    model = train(build, loss, config)
    elapsed_s = time.perf_counter() - start
    figures = measure(model)
    metadata = {name: f"{figure:.4f}" for name, figure in figures.items()}
    metadata["config"] = json.dumps(asdict(config))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.output, save(model.state_dict(), metadata=metadata))
    logger.info("%s: %s, trained in %.0f s", args.output, metadata, elapsed_s)
