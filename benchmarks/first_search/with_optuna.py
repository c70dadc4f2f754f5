"""Ten configs of the CNN with Optuna and its pruner of successive halving."""

import optuna
import torch

from benchmarks.first_search.model import accuracy, build, train_step


def objective(trial):
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    width = trial.suggest_int("width", 4, 32)
    random = torch.Generator().manual_seed(0)
    model = build(width, seed=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for step in range(1, 401):
        train_step(model, optimiser, random)
        if step in (60, 180, 400):
            trial.report(accuracy(model, "val"), step)
            if trial.should_prune():
                raise optuna.TrialPruned()
    trial.set_user_attr("test_acc", accuracy(model, "test"))
    return accuracy(model, "val")


if __name__ == "__main__":
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=60, reduction_factor=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.optimize(objective, n_trials=10)
    print(study.best_params, study.best_trial.user_attrs)
