"""A small GPT-2 of transformers, from scratch, on sums written as characters. Needs transformers and accelerate."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tune_rh
from tune_rh.adapters.transformers import task as transformers_task

CHARACTERS = "0123456789+=;"


def data(config, data_dir):
    numbers = torch.randperm(10_000, generator=torch.Generator().manual_seed(0)).tolist()
    sums = [f"{n // 100:02d}+{n % 100:02d}={n // 100 + n % 100:03d};" for n in numbers]
    rows = [torch.tensor([CHARACTERS.index(c) for c in text]) for text in sums]
    examples = [{"input_ids": row, "labels": row} for row in rows]
    return {"train": examples[:9000], "val": examples[9000:9500], "test": examples[9500:]}


def model(config):
    size = GPT2Config(
        vocab_size=13, n_positions=10, n_embd=config["width"], n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    return GPT2LMHeadModel(size)


def arguments(config):
    return {
        "learning_rate": config["lr"],
        "weight_decay": 0.1,
        "per_device_train_batch_size": 32,
        "lr_scheduler_type": "cosine",
        "max_steps": 90,
    }


def suggest(trial):
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True),
        "width": trial.suggest_categorical("width", [16, 32]),
    }


task = transformers_task(model, data, arguments)

if __name__ == "__main__":
    run = tune_rh.search(
        task, space=suggest, base=dict(lr=1e-3, width=32), objective="val_loss", stages=[(30, 2), (90, 3)],
        candidates=6, name="gpt2", runner="local",
    )  # fmt: skip
    print(run.candidates[["label", "score", "rank"]])
