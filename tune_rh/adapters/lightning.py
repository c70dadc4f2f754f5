"""A LightningModule and its data as a task: its own optimisers, schedulers and hooks; a step is one optimiser step.

There is no Trainer: stages, checkpoints and the device are the search's. Of a Trainer the module sees what `_Trainer`
has; what it logs is what the task reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainables.api import Split
from tune_rh.adapters.dataloader import stateful
from tune_rh.adapters.factory import Factory, mean_of, seeded


def task(
    module: Callable[[Any], Any],
    data: Callable[[Any, Path], Any],
    *,
    accumulate: int = 1,
    clip: float | None = None,
    steps: int | None = None,
) -> Factory:
    """A task for `tune_rh.search`; it reports what the module logs: ``val_loss`` is its ``self.log("val_loss", ...)``.

    Args:
        module: called with the config; returns a LightningModule.
        data: called with the config and the folder of the data; returns a LightningDataModule.
        accumulate: batches of an optimiser step.
        clip: the norm that gradients are clipped to.
        steps: optimiser steps that schedules are made for (``trainer.max_steps``): not those of a stage.
    """
    options = {"make": module, "data": data, "accumulate": accumulate, "clip": clip, "steps": steps}
    return Factory(_Task, module, options)


class _Trainer:
    """What a LightningModule may ask its trainer for."""

    is_global_zero, world_size, global_rank, local_rank, num_nodes = True, 1, 0, 0, 1
    sanity_checking = fast_dev_run = predicting = False
    barebones = False
    logger = None
    loggers: tuple[Any, ...] = ()

    def __init__(self, steps: int | None, accumulate: int, datamodule: Any) -> None:
        self.max_steps = -1 if steps is None else steps
        self.accumulate_grad_batches, self.datamodule = accumulate, datamodule
        self.global_step = self.current_epoch = 0
        self.optimizers: list[Any] = []
        self.callback_metrics: dict[str, Any] = {}
        self.training = self.validating = self.testing = False
        self.num_training_batches = 0

    @property
    def estimated_stepping_batches(self) -> int:
        """For schedules."""
        if self.max_steps < 0:
            raise ValueError("estimated_stepping_batches: how long the schedule is; give task(..., steps=...)")
        return self.max_steps


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
        accumulate: int,
        clip: float | None,
        steps: int | None,
    ) -> None:
        self._seed, self._device, self._accumulate, self._clip = seed, device, accumulate, clip
        self._data = data(config, data_dir)
        # Whatever is drawn here, to split the data for example, is the same for every seed.
        with seeded(0, "prepare"):
            self._data.prepare_data()
        with seeded(0, "setup"):
            self._data.setup("fit")
        self._trainer = _Trainer(steps, accumulate, self._data)
        self._logged: dict[str, float] = {}
        self._objects: dict[str, Any] = {}
        self._loader = stateful(self._data.train_dataloader(), seed)
        self._trainer.num_training_batches = getattr(self._loader, "num_batches", 0)
        self._num_batches, self._is_set_up = 0, False
        with seeded(seed, "model", device), self._phase("training"):
            self.model = self._made(make(config))
        self.model.train()

    def _made(self, model: Any) -> Any:
        """The module as it stands before its first step."""
        name = type(model).__name__
        if not model.automatic_optimization:
            raise ValueError(
                f"{name}: automatic_optimization is False: only its own loop knows what a step is. Write a task: "
                "step, evaluate, state_dict and load_state_dict"
            )
        model.trainer = self._trainer
        model.log, model.log_dict = self._log, self._log_dict
        model.setup("fit")
        model.configure_model()
        model.to(self._device)
        self._optimisers, self._schedulers = _configured(model)
        self._trainer.optimizers = self._optimisers
        if len(self._optimisers) != 1:
            raise ValueError(f"{name}.configure_optimizers: {len(self._optimisers)} optimisers; allowed is one")
        watched = [
            one["monitor"] for one in self._schedulers if one["monitor"] and not one["monitor"].startswith("train")
        ]
        if watched:
            raise ValueError(
                f"{name}.configure_optimizers: monitor = {watched[0]!r}: evaluating may not change training; a "
                "scheduler may follow what training_step logs, under a name that begins with train"
            )
        model.on_fit_start()
        model.on_train_start()
        return model

    def step(self) -> dict[str, float]:
        """Take batches until the optimiser has stepped once."""
        model, (optimiser,) = self.model, self._optimisers
        losses: list[float] = []
        self._logged = {}
        with self._phase("training"), seeded(self._seed, f"step {self._trainer.global_step}", self._device):
            for number in range(self._accumulate):
                ends_epoch = self._begin_batch()
                batch, index = self._batch(next(self._loader)), self._num_batches
                model.on_train_batch_start(batch, index)
                is_last = number == self._accumulate - 1

                def closure(batch: Any = batch, index: int = index) -> Any:
                    return self._backward(batch, index, losses)

                if is_last:
                    model.optimizer_step(
                        self._trainer.current_epoch, index, _Stepped(optimiser, self._before_step), closure
                    )
                    self._trainer.global_step += 1
                    self._schedule("step")
                else:
                    closure()
                model.on_train_batch_end({"loss": losses[-1]}, batch, index)
                self._num_batches += 1
                if ends_epoch():
                    self._end_epoch()
        self._trainer.callback_metrics = {**self._logged, **self._computed()}
        reported = {name: value for name, value in self._trainer.callback_metrics.items() if name.startswith("train")}
        return {**reported, "train_loss": sum(losses) / len(losses), "lr": optimiser.param_groups[0]["lr"]}

    @torch.no_grad()
    def evaluate(self, split: Split = "val") -> dict[str, float]:
        """What the module logs over the split's batches: means, weighted by the sizes of batches."""
        name = "validation" if split == "val" else "test"
        was_training = self.model.training
        if split == "test" and not self._is_set_up:
            with seeded(0, "setup"):
                self._data.setup("test")
            self._is_set_up = True
        with self._phase("validating" if split == "val" else "testing"), seeded(self._seed, split, self._device):
            loader = self._data.val_dataloader() if split == "val" else self._data.test_dataloader()
            self.model.eval()
            getattr(self.model, f"on_{name}_start")()
            getattr(self.model, f"on_{name}_epoch_start")()
            means = mean_of(self._evaluated(loader, getattr(self.model, f"{name}_step"), name))
            self._logged = {}
            getattr(self.model, f"on_{name}_epoch_end")()
            getattr(self.model, f"on_{name}_end")()
            means |= {**self._logged, **self._computed()}
        self.model.train(was_training)
        return means

    def state_dict(self) -> dict[str, Any]:
        """The module with what its ``on_save_checkpoint`` adds, the optimiser, schedulers and the place in the data."""
        own: dict[str, Any] = {}
        self.model.on_save_checkpoint(own)
        return {
            "model": self.model.state_dict(),
            "own": own,
            "optimiser": self._optimisers[0].state_dict(),
            "schedulers": [scheduler["scheduler"].state_dict() for scheduler in self._schedulers],
            "loader": self._loader.state_dict(),
            "seed": self._seed,
            "steps": [self._trainer.global_step, self._trainer.current_epoch, self._num_batches],
            "logged": {name: float(value) for name, value in self._trainer.callback_metrics.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.model.load_state_dict(state["model"])
        self.model.on_load_checkpoint(dict(state["own"]))
        self._optimisers[0].load_state_dict(state["optimiser"])
        for scheduler, saved in zip(self._schedulers, state["schedulers"], strict=True):
            scheduler["scheduler"].load_state_dict(saved)
        self._loader.load_state_dict(state["loader"])
        self._seed = state["seed"]
        self._trainer.global_step, self._trainer.current_epoch, self._num_batches = state["steps"]
        self._trainer.callback_metrics = dict(state["logged"])

    def _begin_batch(self) -> Callable[[], bool]:
        """Tell the module that an epoch begins, where one does; the function says whether it has ended since."""
        if self._loader.position == 0:
            self._num_batches = 0
            self._trainer.current_epoch = self._loader.epoch
            self.model.on_train_epoch_start()
        epoch = self._loader.epoch
        return lambda: bool(self._loader.epoch != epoch)

    def _end_epoch(self) -> None:
        self.model.on_train_epoch_end()
        self._schedule("epoch")

    def _backward(self, batch: Any, index: int, losses: list[float]) -> Any:
        model, (optimiser,) = self.model, self._optimisers
        output = model.training_step(batch, index)
        if output is None:
            raise ValueError(f"{type(model).__name__}.training_step: returns None; a step needs its loss")
        loss = output["loss"] if isinstance(output, Mapping) else output
        if not losses:
            model.on_before_zero_grad(optimiser)
            model.optimizer_zero_grad(self._trainer.current_epoch, index, optimiser)
        model.on_before_backward(loss)
        (loss / self._accumulate).backward()
        model.on_after_backward()
        losses.append(loss.item())
        return loss

    def _before_step(self, optimiser: Any) -> None:
        self.model.on_before_optimizer_step(optimiser)
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)

    def _schedule(self, interval: str) -> None:
        count = self._trainer.global_step if interval == "step" else self._trainer.current_epoch + 1
        for scheduler in self._schedulers:
            if scheduler["interval"] == interval and count % scheduler["frequency"] == 0:
                self.model.lr_scheduler_step(scheduler["scheduler"], self._metric(scheduler))

    def _metric(self, scheduler: Mapping[str, Any]) -> Any:
        if not isinstance(scheduler["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau):
            return None
        known = {**self._trainer.callback_metrics, **self._logged}
        if scheduler["monitor"] not in known:
            known_names = ", ".join(known) or "none"
            raise ValueError(f"monitor = {scheduler['monitor']!r}: is not logged yet; known: {known_names}")
        return known[scheduler["monitor"]]

    def _evaluated(self, loader: Any, step: Any, name: str) -> Iterator[tuple[dict[str, float], int]]:
        for index, batch in enumerate(loader):
            self._logged = {}
            batch = self._batch(batch)
            getattr(self.model, f"on_{name}_batch_start")(batch, index, 0)
            output = step(batch, index)
            getattr(self.model, f"on_{name}_batch_end")(output, batch, index, 0)
            yield self._logged, _size(batch)

    def _batch(self, batch: Any) -> Any:
        model = self.model
        batch = model.on_before_batch_transfer(batch, 0)
        batch = model.transfer_batch_to_device(batch, torch.device(self._device), 0)
        return model.on_after_batch_transfer(batch, 0)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        setattr(self._trainer, name, True)
        try:
            yield
        finally:
            setattr(self._trainer, name, False)

    def _log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        if hasattr(value, "compute"):
            self._objects[name] = value
        else:
            self._logged[name] = float(value.detach() if isinstance(value, torch.Tensor) else value)

    def _computed(self) -> dict[str, float]:
        """What metrics of torchmetrics have come to; they begin again."""
        found = {name: float(metric.compute()) for name, metric in self._objects.items()}
        for metric in self._objects.values():
            metric.reset()
        self._objects = {}
        return found

    def _log_dict(self, values: Mapping[str, Any], *_: Any, **__: Any) -> None:
        for name, value in values.items():
            self._log(name, value)


class _Stepped:
    """An optimiser as a module's ``optimizer_step`` sees it: the closure runs first, then hooks and clipping."""

    def __init__(self, optimiser: Any, before: Callable[[Any], None]) -> None:
        self._optimiser, self._before = optimiser, before

    def step(self, closure: Callable[[], Any] | None = None, **_: Any) -> Any:
        """Run ``closure``, then step."""
        loss = closure() if closure is not None else None
        self._before(self._optimiser)
        self._optimiser.step()
        return loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimiser, name)


def _configured(module: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """The optimisers of a module, and its schedulers with interval, frequency and monitor, however it returns them."""
    found = module.configure_optimizers()
    optimisers: list[Any] = []
    schedulers: list[Any] = []
    if isinstance(found, Mapping):
        optimisers, schedulers = [found["optimizer"]], [found["lr_scheduler"]] if "lr_scheduler" in found else []
    elif isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], list | tuple):
        optimisers, schedulers = list(found[0]), list(found[1]) if isinstance(found[1], list | tuple) else [found[1]]
    elif isinstance(found, list | tuple):
        optimisers = list(found)
    elif found is not None:
        optimisers = [found]
    for one in (one for one in optimisers if isinstance(one, Mapping)):
        schedulers += [one["lr_scheduler"]] if "lr_scheduler" in one else []
    optimisers = [one["optimizer"] if isinstance(one, Mapping) else one for one in optimisers]
    defaults = {"interval": "epoch", "frequency": 1, "monitor": None}
    named = [one if isinstance(one, Mapping) else {"scheduler": one} for one in schedulers]
    return optimisers, [{**defaults, **one} for one in named]


def _size(batch: Any) -> int:
    """Examples in a batch: the length of its first tensor."""
    if isinstance(batch, torch.Tensor):
        return len(batch)
    inside = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((size for size in map(_size, inside) if size), 0) or 1
