"""A LightningModule and its data on digits. Needs lightning and scikit-learn."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import tune_rh
from tune_rh.adapters.lightning import task as lightning_task


class Net(lightning.LightningModule):
    def __init__(self, lr, width, dropout):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(width, 10)
        )

    def training_step(self, batch, batch_idx):
        loss = functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, batch_idx):
        self.log("test_acc", (self.layers(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.trainer.max_steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Digits(lightning.LightningDataModule):
    def setup(self, stage):
        pixels, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
        self.all = TensorDataset(pixels.float() / 16, labels)

    def _loader(self, first, last, **options):
        return DataLoader(torch.utils.data.Subset(self.all, range(first, last)), 64, **options)

    def train_dataloader(self):
        return self._loader(0, 1200, shuffle=True)

    def val_dataloader(self):
        return self._loader(1200, 1500)

    def test_dataloader(self):
        return self._loader(1500, 1797)


def net(config):
    return Net(**config)


def digits(config, data_dir):
    return Digits()


def suggest(trial):
    return {"lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True), "dropout": trial.suggest_float("dropout", 0.0, 0.5)}


task = lightning_task(net, digits, steps=90)

if __name__ == "__main__":
    run = tune_rh.search(
        task, space=suggest, base=dict(lr=1e-3, width=32, dropout=0.1), objective="val_acc", mode="max",
        stages=[(30, 2), (90, 3)], candidates=6, name="lightning", runner="local",
    )  # fmt: skip
    print(run.candidates[["label", "score", "rank"]])
