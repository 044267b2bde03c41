"""Train the digits ViT on one CPU core and write its checkpoint.

Usage: `python -m vitq.models.digits_vit.train --output digits_vit.safetensors --seed 0 --epochs
    80`.

The weights kept are the moving average after the last epoch. The held-out images are looked at
once, after training, so the accuracy in the metadata is not the best of several.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vitq.models.digits_vit import CHECKPOINT, digits_vit
from vitq.models.digits_vit.data import LabelledImages, load_digits_split, normalize

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """The recipe; the defaults made the committed checkpoints."""

    seed: int = 0
    epochs: int = 80
    warmup_epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    ema_decay: float = 0.99  # about the last 100 steps, four and a half epochs
    max_rotation_deg: float = 10.0
    max_scale: float = 0.1
    max_shift_px: float = 2.5

    def __post_init__(self) -> None:
        """Refuse a schedule without steps."""
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")


def augment(images: torch.Tensor, config: TrainConfig, generator: torch.Generator) -> torch.Tensor:
    """Rotate, stretch and shift each image of a normalised batch (B, 3, H, W) at random."""
    batch, _, height, _ = images.shape
    uniform = 2 * torch.rand(5, batch, generator=generator) - 1
    angle = torch.deg2rad(config.max_rotation_deg * uniform[0])
    scale_x, scale_y = 1 + config.max_scale * uniform[1:3]
    # affine_grid measures in half image widths.
    shift_x, shift_y = 2 * config.max_shift_px / height * uniform[3:5]
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack((scale_x * cos, -scale_x * sin, shift_x), dim=1)
    row_y = torch.stack((scale_y * sin, scale_y * cos, shift_y), dim=1)
    theta = torch.stack((row_x, row_y), dim=1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    # "border" repeats the edge: zeros would be mid-gray here, background is -1.
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _batches(
    data: LabelledImages, config: TrainConfig, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one epoch of shuffled, augmented batches."""
    images = torch.from_numpy(normalize(data.images))
    labels = torch.from_numpy(data.labels.copy())
    for indices in torch.randperm(len(labels), generator=generator).split(config.batch_size):
        yield augment(images[indices], config, generator), labels[indices]


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Group an optimizer's parameters: decay the weights of linear and conv layers only."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    decayed = [layer.weight for layer in layers]
    taken = {id(weight) for weight in decayed}
    others = [p for p in model.parameters() if id(p) not in taken]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly during the warm-up, then fall to 0 along half a cosine."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return float(0.5 * (1 + np.cos(np.pi * progress)))


def train(
    data: LabelledImages, config: TrainConfig, build: Callable[[], nn.Module] = digits_vit
) -> nn.Module:
    """Train from scratch and return the averaged model in eval mode.

    Args:
        data: the training part.
        config: the recipe.
        build: returns the model with random weights.
    """
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    model = build()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    groups = decayed_groups(model, config.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    steps_per_epoch = -(-len(data.labels) // config.batch_size)
    warmup, total = (n * steps_per_epoch for n in (config.warmup_epochs, config.epochs))
    scheduler = LambdaLR(optimizer, lambda step: learning_rate_factor(step, warmup, total))
    progress = tqdm(range(config.epochs), desc="train", unit="epoch")
    for _ in progress:
        losses = []
        for images, labels in _batches(data, config, generator):
            logits = model(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step()
            average.update_parameters(model)
            losses.append(loss.item())
        progress.set_postfix(loss=f"{np.mean(losses):.3f}")
    return average.module.eval()


@torch.inference_mode()
def evaluate(model: nn.Module, data: LabelledImages) -> float:
    """Return the top-1 accuracy, 0..1."""
    logits = model(torch.from_numpy(normalize(data.images)))
    return float((logits.argmax(dim=1).numpy() == data.labels).mean())


def save_checkpoint(model: nn.Module, output: Path, config: TrainConfig, accuracy: float) -> None:
    """Write the weights, with the recipe as metadata, so that no half-written file is ever seen."""
    metadata = {
        "accuracy": f"{accuracy:.4f}",
        "seed": str(config.seed),
        "epochs": str(config.epochs),
        "config": json.dumps(asdict(config)),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    try:
        # Bytes, because save_file would make the file unreadable to other users.
        temporary.write_bytes(save(model.state_dict(), metadata=metadata))
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def train_and_save(
    build: Callable[[], nn.Module], checkpoint: Path, what: str, argv: list[str] | None
) -> None:
    """Parse the command line, train, report, write.

    Args:
        build: returns the model with random weights.
        checkpoint: where to write unless ``--output`` says otherwise.
        what: the model is called.
        argv: the command line's arguments; None for the process's own.
    """
    default = TrainConfig()
    parser = argparse.ArgumentParser(description=f"Train the {what} on one CPU core.")
    parser.add_argument("--output", type=Path, default=checkpoint, help="checkpoint to write")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--epochs", type=int, default=default.epochs)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # One thread: the order of float additions, and so the result, depends on the thread count.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    config = TrainConfig(seed=args.seed, epochs=args.epochs)
    data = load_digits_split()
    start = time.perf_counter()
    model = train(data.train, config, build)
    elapsed_s = time.perf_counter() - start
    accuracy = evaluate(model, data.test)
    save_checkpoint(model, args.output, config, accuracy)
    logger.info("%s: test accuracy %.4f, trained in %.0f s", args.output, accuracy, elapsed_s)


def main(argv: list[str] | None = None) -> None:
    """Train the digits ViT."""
    train_and_save(digits_vit, CHECKPOINT, "digits ViT", argv)


if __name__ == "__main__":
    main()
