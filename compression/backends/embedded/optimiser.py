"""Mixed-precision optimisation whose whole state fits into one safetensors file."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

LEARNING_RATE = 2e-3
WARM_UP_STEPS = 50
M = TypeVar("M", bound=nn.Module)


class MixedPrecision(Generic[M]):
    """Float32 master weights and a bfloat16 copy that computes: twice as fast as autocast on a CPU.

    Weights of the layers' matrices are trained by Muon, everything else by AdamW.
    """

    def __init__(self, master: M) -> None:
        self.master = master
        self.compute = copy.deepcopy(master).bfloat16()
        self._names = [name for name, weight in master.named_parameters() if weight.requires_grad]
        self._pairs = list(zip(master.parameters(), self.compute.parameters(), strict=True))
        named = dict(master.named_parameters())
        matrices = [name for name in self._names if named[name].ndim == 2 and "layers." in name]
        rest = [name for name in self._names if name not in set(matrices)]
        self._groups = (matrices, rest)
        self._optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] = (
            torch.optim.Muon(
                [named[name] for name in matrices],
                lr=LEARNING_RATE,
                weight_decay=0.02,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW([named[name] for name in rest], lr=LEARNING_RATE, weight_decay=0.02, betas=(0.9, 0.98)),
        )

    def step(self, scale: float) -> float:
        """Apply the gradients of the compute copy at `scale` times the learning rate; returns their norm."""
        for weight, fast in self._pairs:
            weight.grad = None if fast.grad is None else fast.grad.float()
            fast.grad = None
        present = [weight for weight, _ in self._pairs if weight.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(present, 1.0))
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self._copy_down()
        return norm

    def _copy_down(self) -> None:
        with torch.no_grad():
            for weight, fast in self._pairs:
                fast.copy_(weight)

    def state(self) -> dict[str, Tensor]:
        """Flatten weights and optimiser state to named tensors."""
        tensors = {f"weight/{name}": value for name, value in self.master.state_dict().items()}
        for names, optimiser in zip(self._groups, self._optimisers, strict=True):
            for index, entries in optimiser.state_dict()["state"].items():
                for key, value in entries.items():
                    tensors[f"optimiser/{names[index]}/{key}"] = torch.as_tensor(value)
        return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        prefix = "weight/"
        weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self.master.load_state_dict(weights)
        for names, optimiser in zip(self._groups, self._optimisers, strict=True):
            state: dict[int, dict[str, Tensor]] = {}
            for index, name in enumerate(names):
                start = f"optimiser/{name}/"
                found = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
                if found:
                    state[index] = found
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self._copy_down()


def scale_at(step: int, steps: int, constant_share: float = 0.5) -> float:
    """Warm up, hold, then fall linearly to 2 % of the learning rate."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    done = step / max(steps, 1)
    return warm if done < constant_share else warm * max(0.02, (1 - done) / (1 - constant_share))


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write a state file that is complete or absent; facts travel in its header as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new{os.getpid()}")
    save_file(dict(tensors), fresh, metadata={"facts": json.dumps(dict(facts), sort_keys=True)})
    fresh.replace(path)


def load_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a state file."""
    return load_file(path)
