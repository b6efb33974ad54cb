"""Where a measurement was made."""

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Where this was measured, and on which commit."""
    folder = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=folder, check=False)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "device": name, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__, "commit": commit.stdout.strip() or "unknown",
    }  # fmt: skip


def _processor() -> str:
    lines: Iterator[str] = iter(())
    if (told := Path("/proc/cpuinfo")).is_file():
        lines = (
            line.split(":", 1)[1].strip() for line in told.read_text().splitlines() if line.startswith("model name")
        )
    return next(lines, platform.processor())
