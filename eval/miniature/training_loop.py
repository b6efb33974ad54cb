"""Resumable training of the miniature's models: one network on the terms of its loss, and the state that resumes."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from data.files import atomic_file
from distill.distributed import resolve_precision


@dataclass(frozen=True)
class TrainingConfig:
    """Length and learning rate, which rises for `warmup` steps and falls along a cosine to a twentieth."""

    steps: int
    rate: float
    warmup: int = 100
    decay: float = 0.01
    ema: float = 0.998
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    save_seconds: float = 90.0


def scheduled_lr(config: TrainingConfig, step: int) -> float:
    """The learning rate of a step."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.rate * (0.05 + 0.95 * 0.5 * (1 + cos(pi * share)))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        save_file({key: value.detach().contiguous() for key, value in tensors.items()}, partial, metadata)


def cpu_precision() -> Literal["bf16", "fp32"]:
    """bf16 where this CPU multiplies in it, else fp32."""
    return resolve_precision("auto", torch.device("cpu"))


def autocast() -> torch.autocast:
    """What a forward pass computes in: `cpu_precision`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_precision() == "bf16")


class TrainState:
    """Model, EMA and optimizer, as one set of named tensors."""

    def __init__(self, model: nn.Module, config: TrainingConfig) -> None:
        self.model, self.config, self.step, self.seconds = model, config, 0, 0.0
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.rate, betas=config.betas, fused=True,
        )  # fmt: skip
        self.trained = matrices + vectors
        self.ema = {key: value.detach().clone() for key, value in model.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """The content of a checkpoint."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.ema.items()}
        for index, parameter in enumerate(self.trained):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{index}.{key}"] = value
        tensors["step"], tensors["seconds"] = torch.tensor(self.step), torch.tensor(self.seconds)
        return {key: value.clone() for key, value in tensors.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the `tensors` of a checkpoint."""
        self.step, self.seconds = int(tensors["step"]), float(tensors["seconds"])
        self.model.load_state_dict({key: tensors[f"model.{key}"] for key in self.ema})
        for key, average in self.ema.items():
            average.copy_(tensors[f"average.{key}"])
        for index, parameter in enumerate(self.trained):
            prefix = f"optimizer.{index}."
            stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.optimizer.state[parameter] = {  # the fused optimizer reads moments in the parameter's memory format
                key: torch.empty_like(parameter, requires_grad=False).copy_(value) if value.ndim else value.clone()
                for key, value in stored.items()
            }

    def update(self, loss: Tensor) -> None:
        """One optimizer step and one EMA step."""
        for group in self.optimizer.param_groups:
            group["lr"] = scheduled_lr(self.config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip, error_if_nonfinite=True)
        self.optimizer.step()
        self.step += 1
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        floats = [key for key, value in self.ema.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.ema[key] for key in floats], [current[key] for key in floats], 1 - keep)


def fit(
    name: str, model: nn.Module, config: TrainingConfig, losses: Callable[[int], dict[str, Tensor]], folder: Path
) -> float:
    """Train `model` on the terms of losses(step), leave the EMA in it, and return the CPU seconds of all its training.

    `folder/state.safetensors` is the newest checkpoint, from which the same call resumes.
    """
    state, path = TrainState(model, config), folder / "state.safetensors"
    if path.exists():
        state.load(load_file(path))
    started, saved = time.process_time(), time.monotonic()
    previous_seconds, log = state.seconds, folder / "log.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=config.steps, initial=state.step, desc=name, mininterval=10) as bar, log.open("a") as lines:
        while state.step < config.steps:
            model.train()
            terms = losses(state.step)
            state.update(torch.stack(list(terms.values())).sum())
            bar.update()
            now = time.monotonic()
            state.seconds = previous_seconds + time.process_time() - started
            if state.step % 50 == 0:
                shown = {key: round(value.item(), 4) for key, value in terms.items()}
                lines.write(json.dumps({"step": state.step, "seconds": round(state.seconds, 1), **shown}) + "\n")
                lines.flush()
                bar.set_postfix(shown)
            if now - saved > config.save_seconds or state.step == config.steps:
                save_tensors(state.tensors(), path, {})
                saved = now
    model.load_state_dict(state.ema)
    model.eval()
    return state.seconds
