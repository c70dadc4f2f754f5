"""A plain PyTorch task whose loader augments digits and goes on in the middle of an epoch. Needs scikit-learn."""

import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import tune_rh
from tune_rh.adapters.dataloader import StatefulLoader

IMAGES, LABELS = (torch.tensor(part) for part in load_digits(return_X_y=True))
SPLITS = {"train": slice(0, 1200), "val": slice(1200, 1500), "test": slice(1500, None)}


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 1200

    def __getitem__(self, index):
        return IMAGES[index].float() / 16 + 0.1 * torch.randn(64), LABELS[index]


class Linear(tune_rh.Task):
    def __init__(self, config, *, seed, device, data_dir):
        self.loader = StatefulLoader(Noisy(), 64, seed=seed)
        self.model = torch.nn.Linear(64, 10)
        torch.nn.init.zeros_(self.model.weight)
        torch.nn.init.zeros_(self.model.bias)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=config["lr"], momentum=0.9)

    def step(self):
        images, labels = next(self.loader)
        loss = functional.cross_entropy(self.model(images), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"train_loss": loss.item()}

    @torch.no_grad()
    def evaluate(self, split):
        logits, labels = self.model(IMAGES[SPLITS[split]].float() / 16), LABELS[SPLITS[split]]
        return {f"{split}_loss": functional.cross_entropy(logits, labels).item()}


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 1e-3, 1.0, log=True)}


task = Linear

if __name__ == "__main__":
    run = tune_rh.search(
        task, space=suggest, base=dict(lr=0.05), objective="val_loss", stages=[(30, 2), (90, 3)], candidates=6,
        name="loader", runner="local",
    )  # fmt: skip
    print(run.candidates[["label", "score", "rank"]])
