"""A small CNN on scikit-learn's digits, searched in fifteen lines. Needs scikit-learn."""

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import tune_rh

IMAGES, LABELS = (torch.tensor(part) for part in load_digits(return_X_y=True))
IMAGES = IMAGES.float().view(-1, 1, 8, 8) / 16
SPLITS = {"train": slice(0, 1200), "val": slice(1200, 1500), "test": slice(1500, None)}


class Digits(tune_rh.Task):
    def __init__(self, config, *, seed, device, data_dir):
        self.random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = torch.nn.Sequential(
                torch.nn.Conv2d(1, config["width"], 3), torch.nn.ReLU(), torch.nn.Flatten(),
                torch.nn.Linear(config["width"] * 36, 10),
            ).to(device)  # fmt: skip
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=config["lr"], momentum=config["momentum"])

    def step(self):
        batch = torch.randint(0, 1200, (64,), generator=self.random)
        loss = functional.cross_entropy(self.model(IMAGES[batch]), LABELS[batch])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"train_loss": loss.item()}

    @torch.no_grad()
    def evaluate(self, split):
        right = self.model(IMAGES[SPLITS[split]]).argmax(1) == LABELS[SPLITS[split]]
        return {f"{split}_acc": right.float().mean().item()}


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 1e-3, 1.0, log=True), "width": trial.suggest_int("width", 4, 32)}


if __name__ == "__main__":
    run = tune_rh.search(
        Digits, space=suggest, base=dict(lr=0.05, width=8, momentum=0.9), objective="val_acc", mode="max",
        stages=[(60, 2), (180, 2), (400, 3)], candidates=10, runner="local", say=print,
    )  # fmt: skip
    print(run.candidates[["label", "score", "rank"]], run.best.load().evaluate("test"), run.report(), sep="\n")
