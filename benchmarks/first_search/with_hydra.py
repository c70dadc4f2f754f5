"""Ten configs of the CNN with Hydra and its sweeper of Optuna, which has no pruner."""

import hydra
import torch

from benchmarks.first_search.model import accuracy, build, train_step


@hydra.main(version_base=None, config_path=".", config_name="with_hydra")
def train(config):
    random = torch.Generator().manual_seed(0)
    model = build(config.width, seed=0)
    optimiser = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    for _ in range(400):
        train_step(model, optimiser, random)
    print(accuracy(model, "test"))
    return accuracy(model, "val")


if __name__ == "__main__":
    train()
