"""A model to start from: which of two spirals does a point lie on? Put your own model and data in its place."""

import torch
from torch import nn

import tune_rh


def points(split, number):
    """Points of two noisy spirals, and which of them each lies on: the same at every call."""
    draws = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
    spiral = torch.randint(2, (number,), generator=draws)
    turn = 6 * torch.rand(number, generator=draws).sqrt()
    angle = turn + torch.pi * spiral
    place = turn[:, None] / 6 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return place + 0.1 * torch.randn(number, 2, generator=draws), spiral


class Spirals(tune_rh.Task):
    """One training run of one config, with one seed. Its attributes are saved, so that it goes on bit for bit."""

    constants = ("inputs", "labels")  # but these are not, since training does not change them

    def __init__(self, config, *, seed, device, data_dir):
        self.config, self.device = config, device
        self.random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = nn.Sequential(
                nn.Linear(2, config["width"]),
                nn.ReLU(),
                nn.Linear(config["width"], config["width"]),
                nn.ReLU(),
                nn.Linear(config["width"], 2),
            ).to(device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=config["lr"])
        self.inputs, self.labels = points("train", 1000)

    def step(self):
        """Take one optimiser step; returns metrics of the batch."""
        batch = torch.randint(len(self.labels), (self.config["batch_size"],), generator=self.random)
        loss = self.loss(self.inputs[batch], self.labels[batch])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return {"train_loss": loss.item()}

    @torch.no_grad()
    def evaluate(self, split):
        """Metrics of "val" or "test": the same weights give the same numbers, and training is left as it was."""
        inputs, labels = points(split, 500)
        right = self.model(inputs.to(self.device)).argmax(dim=1).cpu() == labels
        return {f"{split}_loss": self.loss(inputs, labels).item(), f"{split}_accuracy": right.float().mean().item()}

    def loss(self, inputs, labels):
        return nn.functional.cross_entropy(self.model(inputs.to(self.device)), labels.to(self.device))


def suggest(trial):
    """Draw one config of the search space: the fields that differ from the base."""
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "width": trial.suggest_categorical("width", [16, 32, 64]),
    }


if __name__ == "__main__":
    run = tune_rh.search(
        Spirals,
        space=suggest,
        base={"lr": 0.003, "width": 32, "batch_size": 64},  # the control: what others have to beat
        objective="val_accuracy",
        mode="max",
        # The steps of a full run. Gates at 1/20, 1/9, 1/4 and 1/2 of them learn how many to let through, one seed each,
        # and the best earn a second and a third seed at the end. That suits models that differ early. Where they part
        # late (schedules of different lengths, losses that end alike), begin later and let more of them run to the end:
        # stages=[(75, 1), (300, 1), (300, 3)], gates="adaptive", eta=2 in place of steps.
        steps=300,
        budget={"max_steps": 3000},  # ten full runs: as many candidates are tried as that pays for
        runner="local",  # without this line: on Ray, on all cores
        say=print,
    )
    print(run.candidates[["label", "score", "rank"]])
    print(f"Best: {run.best.label}. Report: {run.report()}")
