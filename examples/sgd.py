"""scikit-learn's SGDClassifier on digits, a mini-batch a step. Needs scikit-learn."""

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import tune_rh
from tune_rh.adapters import sklearn


def data(data_dir):
    pixels, labels = load_digits(return_X_y=True)
    splits = {"train": slice(0, 1200), "val": slice(1200, 1500), "test": slice(1500, None)}
    return {name: (pixels[rows] / 16, labels[rows]) for name, rows in splits.items()}


def classifier(config, seed):
    return SGDClassifier(loss="log_loss", random_state=seed, **config)


def suggest(trial):
    return {
        "alpha": trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        "penalty": trial.suggest_categorical("penalty", ["l1", "l2"]),
    }


task = sklearn.task(classifier, data, batch_size=64)

if __name__ == "__main__":
    run = tune_rh.search(
        task, space=suggest, base=dict(alpha=1e-4, penalty="l2"), objective="val_score", mode="max",
        stages=[(40, 2), (120, 3)], candidates=6, name="sgd", runner="local",
    )  # fmt: skip
    print(run.candidates[["label", "score", "rank"]])
