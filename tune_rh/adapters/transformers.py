"""A model of transformers with TrainingArguments as a task: a step is one optimiser step, accumulated and clipped.

Of the arguments count those that say how weights change: batch size, accumulation, optimiser, learning rate and its
schedule (over ``max_steps``), clipping. Saving, logging and evaluating are the search's, and devices too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from trainables.api import Split
from tune_rh.adapters.dataloader import StatefulLoader
from tune_rh.adapters.factory import Factory, mean_of, moved, seeded

Data = Mapping[str, Any]
"""``train``, ``val`` and ``test``: datasets whose examples have the names of the model's inputs."""


def task(
    model: Callable[[Any], Any],
    data: Callable[[Any, Path], Data],
    arguments: Callable[[Any], Any],
    *,
    collate: Callable[[list[Any]], Any] | None = None,
    metrics: Callable[[torch.Tensor, torch.Tensor], Mapping[str, float]] | None = None,
) -> Factory:
    """A task for `tune_rh.search`; it reports ``val_loss`` and ``test_loss``, the model's mean loss over examples.

    Args:
        model: called with the config; returns a model whose output has a ``loss``.
        data: called with the config and the folder of the data; returns the three splits.
        arguments: called with the config; returns TrainingArguments, or their fields as a dict. ``max_steps`` is how
            long the schedule is, whatever the stages are.
        collate: makes a batch of a list of examples (None: as transformers does).
        metrics: called with all logits and labels of a split for more numbers; ``val_`` or ``test_`` is put in front.
    """
    options = {"make": model, "data": data, "arguments": arguments, "collate": collate, "metrics": metrics}
    return Factory(_Task, model, options)


class _Task:
    def __init__(
        self,
        config: Any,
        *,
        seed: int,
        device: str,
        data_dir: Path,
        make: Any,
        data: Any,
        arguments: Any,
        collate: Any,
        metrics: Any,
    ) -> None:
        from transformers import default_data_collator, get_scheduler

        self._seed, self._device, self._step, self._metrics = seed, device, 0, metrics
        self._collate = collate or default_data_collator
        self._args = _arguments(arguments(config))
        if self._args.max_steps < 1:
            raise ValueError(f"max_steps = {self._args.max_steps}: allowed is a number of steps, for the schedule")
        with seeded(seed, "model", device):
            self.model = make(config).to(device)
        with seeded(0, "data"):  # the same for every seed
            self._data = data(config, data_dir)
        self._loader = StatefulLoader(
            self._data["train"],
            self._args.per_device_train_batch_size,
            seed=seed,
            drop_last=self._args.dataloader_drop_last,
            collate=self._collate,
        )
        self._optimiser = _optimiser(self.model, self._args)
        warmup = self._args.get_warmup_steps(self._args.max_steps)
        self._schedule = get_scheduler(
            self._args.lr_scheduler_type,
            self._optimiser,
            num_warmup_steps=warmup,
            num_training_steps=self._args.max_steps,
            scheduler_specific_kwargs=self._args.lr_scheduler_kwargs or {},
        )

    def step(self) -> dict[str, float]:
        """Take as many batches as the arguments accumulate, and step once."""
        self.model.train()
        lr, losses = self._schedule.get_last_lr()[0], list[float]()
        with seeded(self._seed, f"step {self._step}", self._device):
            for _ in range(self._args.gradient_accumulation_steps):
                loss = self.model(**moved(next(self._loader), self._device)).loss
                (loss / self._args.gradient_accumulation_steps).backward()
                losses.append(loss.item())
        norm = self._args.max_grad_norm or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), norm).item()
        self._optimiser.step()
        self._schedule.step()
        self._optimiser.zero_grad()
        self._step += 1
        return {"train_loss": sum(losses) / len(losses), "lr": lr, "grad_norm": grad_norm}

    @torch.no_grad()
    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """The model's mean loss on a split, and what ``metrics`` adds."""
        was_training = self.model.training
        self.model.eval()
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        with seeded(self._seed, split, self._device):
            shown = mean_of(self._evaluated(split, kept))
        self.model.train(was_training)
        if self._metrics is not None:
            logits, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
            shown |= self._metrics(logits, labels)
        return {f"{split}_{name}": float(value) for name, value in shown.items()}

    def state_dict(self) -> dict[str, Any]:
        """Model, optimiser, schedule and the place in the data."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": {name: value for name, value in self._schedule.state_dict().items() if name != "lr_lambdas"},
            "loader": self._loader.state_dict(),
            "seed": self._seed,
            "step": self._step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        own = self._schedule.state_dict()  # its functions of the step are made by the arguments
        self._schedule.load_state_dict({**own, **state["schedule"]})
        self._loader.load_state_dict(state["loader"])
        self._seed, self._step = state["seed"], state["step"]

    def _evaluated(self, split: Split, kept: list[Any]) -> Iterator[tuple[dict[str, float], int]]:
        size = self._args.per_device_eval_batch_size
        for batch in DataLoader(self._data[split], size, collate_fn=self._collate, generator=torch.Generator()):
            there = moved(batch, self._device)
            output = self.model(**there)
            if self._metrics is not None:
                kept.append((output.logits.cpu(), there["labels"].cpu()))
            yield {"loss": output.loss.item()}, len(next(iter(batch.values())))


def _arguments(given: Any) -> Any:
    """TrainingArguments, made of their fields where those are given."""
    from transformers import TrainingArguments

    if not isinstance(given, Mapping):
        return given
    return TrainingArguments(**{"output_dir": "unused", "report_to": "none", "use_cpu": True, **given})


def _optimiser(model: Any, args: Any) -> Any:
    """As Trainer makes it: no decay of biases and of the weights of norms."""
    from transformers import Trainer
    from transformers.trainer_pt_utils import get_parameter_names

    kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    decayed = {
        name
        for name in get_parameter_names(model, [torch.nn.LayerNorm])  # type: ignore[no-untyped-call]
        if not name.endswith("bias") and "norm" not in name.lower()
    }
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": args.weight_decay},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    return kind(groups, **options)
