"""Ten configs of the CNN with tune-rh: gates at 60 and 180 steps, the winner scored on the test split."""

import torch

import tune_rh
from benchmarks.first_search.model import accuracy, build, train_step


class Digits(tune_rh.Task):
    def __init__(self, config, *, seed, device, data_dir):
        self.random = torch.Generator().manual_seed(seed)
        self.model = build(config["width"], seed)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=config["lr"], momentum=0.9)

    def step(self):
        return {"train_loss": train_step(self.model, self.optimiser, self.random)}

    def evaluate(self, split):
        return {f"{split}_acc": accuracy(self.model, split)}


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 1e-3, 1.0, log=True), "width": trial.suggest_int("width", 4, 32)}


if __name__ == "__main__":
    run = tune_rh.search(
        Digits,
        space=suggest,
        base=dict(lr=0.05, width=8),
        objective="val_acc",
        mode="max",
        stages=[(60, 1), (180, 1), (400, 1)],
        candidates=10,
    )
    print(run.best.config, run.best.load().evaluate("test"))
