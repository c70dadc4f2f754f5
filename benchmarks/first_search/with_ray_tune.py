"""Ten configs of the CNN with Ray Tune and ASHA."""

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from benchmarks.first_search.model import accuracy, build, train_step


def train(config):
    random = torch.Generator().manual_seed(0)
    model = build(config["width"], seed=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    for step in range(1, 401):
        train_step(model, optimiser, random)
        if step in (60, 180, 400):
            tune.report({"step": step, "val_acc": accuracy(model, "val"), "test_acc": accuracy(model, "test")})


if __name__ == "__main__":
    scheduler = ASHAScheduler(time_attr="step", max_t=400, grace_period=60, reduction_factor=3)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"lr": tune.loguniform(1e-3, 1.0), "width": tune.randint(4, 33)},
        tune_config=tune.TuneConfig(metric="val_acc", mode="max", num_samples=10, scheduler=scheduler),
    )
    best = tuner.fit().get_best_result()
    print(best.config, best.metrics["test_acc"])
