"""What all share: a CNN on scikit-learn's digits, its batches and its accuracy."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

IMAGES, LABELS = (torch.tensor(part) for part in load_digits(return_X_y=True))
IMAGES = IMAGES.float().view(-1, 1, 8, 8) / 16
SPLITS = {"train": slice(0, 1200), "val": slice(1200, 1500), "test": slice(1500, None)}


def build(width: int, seed: int) -> torch.nn.Module:
    """An untrained model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(width * 36, 10)
        )


def train_step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, random: torch.Generator) -> float:
    """Take one optimiser step on a batch of 64; its loss."""
    batch = torch.randint(0, 1200, (64,), generator=random)
    loss = torch.nn.functional.cross_entropy(model(IMAGES[batch]), LABELS[batch])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


@torch.no_grad()
def accuracy(model: torch.nn.Module, split: str) -> float:
    """The share of a split that is classified right."""
    return (model(IMAGES[SPLITS[split]]).argmax(1) == LABELS[SPLITS[split]]).float().mean().item()
