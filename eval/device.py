"""The device that a command computes on."""

import torch

from data.command import UserError


def chosen(name: str | None) -> torch.device:
    """The device `name`, or without one cuda where there is one; UserError where torch cannot use it."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError) as error:  # also NotImplementedError, of `meta`
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device
