"""A run that can be killed at any instant and resumed: stages, checkpoints, and the record of what was measured.

A checkpoint holds the network, the optimiser, the step and the random generator; it is written beside its name and
then renamed, so there is always a whole one. Batches are functions of the seed and the step, so on one machine, with
the same number of threads, a resumed run ends with the same weights as an uninterrupted one, bit for bit.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from edge.errors import ConfigError, one_line
from export.training.schedule import Stage

CLIP_NORM = 5.0
DECAY = 0.02  # of weights
_KEYS = {"key", "stage", "step", "finished", "history", "network", "optimiser", "random"}


class Progress:
    """The state of one training run in a folder; nothing is kept without a folder.

    Args:
        folder: of checkpoint.pt and history.jsonl.
        key: what the run depends on; a checkpoint of another key is refused.
        every: steps between checkpoints.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, object], every: int, resume: bool = False) -> None:
        self.folder, self.every = folder, every
        self._since = time.monotonic()
        self.key = json.dumps(key, sort_keys=True)
        self.history: list[dict[str, float | str]] = []
        self._resumed: dict[str, Any] | None = None
        self._finished: list[str] = []
        self.seconds = 0.0  # of all stages so far, over all resumptions
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "checkpoint.pt"
        if resume and path.is_file():
            self._resumed = _read(path)
            if self._resumed["key"] != self.key:
                raise ConfigError(f"{path}: expected a checkpoint of these options, got one of {self._resumed['key']}")
            self.history = json.loads(str(self._resumed["history"]))
            self._finished = list(self._resumed["finished"])
            self.seconds = float(self._resumed.get("seconds", 0.0))

    def stage(
        self, name: str, net: nn.Module, trained: list[nn.Parameter], stage: Stage,
        batches: Callable[[int], Iterator[object]], loss: Callable[[object, int], tuple[Tensor, dict[str, float]]],
    ) -> None:  # fmt: skip
        """Trains one stage to its end, from where the last run stopped.

        Args:
            net: whose whole state is kept; `trained` of it is optimised.
            batches: the batches from a step on.
            loss: loss of a batch at a step, and figures for the record.
        """
        if self._done_before(name, net):
            return
        optimiser = torch.optim.AdamW(trained, lr=stage.rate, weight_decay=DECAY)
        first = self._thaw(name, net, optimiser)
        bar = tqdm(batches(first), total=stage.steps, initial=first, desc=name)
        for step, batch in enumerate(bar, first):
            for group in optimiser.param_groups:
                group["lr"] = stage.rate_at(step)
            value, figures = loss(batch, step)
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, CLIP_NORM)
            optimiser.step()
            self.record(name, step, {"loss": float(value.detach()), **figures})
            bar.set_postfix(loss=f"{float(value.detach()):.3f}")
            if (step + 1) % self.every == 0 and step + 1 < stage.steps:
                self._save(name, net, optimiser, step + 1)
        self._finished.append(name)
        self._save(name, net, None, stage.steps)

    def restored(self, name: str, net: nn.Module) -> bool:
        """Whether the resumed run had finished this stage as its last; then `net` is as it was."""
        return self._done_before(name, net)

    def record(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Adds figures to the record; curves are drawn from it."""
        self.history.append({"stage": stage, "step": float(step), **figures})

    def _done_before(self, name: str, net: nn.Module) -> bool:
        """Whether the resumed run had finished this stage; then `net` is as it was when the run was left."""
        if self._resumed is None or name not in self._finished:
            return False
        self._load(net)
        if self._resumed["stage"] == name:
            self._resumed = None
        return True

    def _thaw(self, name: str, net: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        resumed = self._resumed
        if resumed is None or resumed["stage"] != name:
            return 0
        self._load(net)
        optimiser.load_state_dict(resumed["optimiser"])
        self._resumed = None
        return int(resumed["step"])

    def _load(self, net: nn.Module) -> None:
        assert self._resumed is not None
        net.load_state_dict(self._resumed["network"])
        torch.set_rng_state(self._resumed["random"])

    def _save(self, name: str, net: nn.Module, optimiser: torch.optim.Optimizer | None, step: int) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        if self.folder is None:
            return
        state = {
            "key": self.key, "stage": name, "step": step, "finished": list(self._finished),
            "seconds": self.seconds, "history": json.dumps(self.history), "network": net.state_dict(),
            "optimiser": optimiser.state_dict() if optimiser else {}, "random": torch.get_rng_state(),
        }  # fmt: skip
        whole, part = self.folder / "checkpoint.pt", self.folder / "checkpoint.part"
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(whole)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # cut short, or of another kind
        raise ConfigError(f"{path}: expected a checkpoint, got: {one_line(str(error)[:200]) or 'its end'}") from None
    if not isinstance(found, dict) or not found.keys() >= _KEYS:
        raise ConfigError(f"{path}: expected a checkpoint of a training, got another file")
    return found
