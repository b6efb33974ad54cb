"""Runs one of the project's commands as a stage of a longer way."""

import os
import subprocess
import sys
from pathlib import Path

from data.command import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
# What libraries say of themselves while loading would hide the lines that matter.
QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


def run_stage(*arguments: str) -> None:
    """`python ARGUMENTS` in the repository; a mistake, which its own line has told, ends this process too."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, env=QUIET | os.environ, check=False)
    if done.returncode == 2:
        sys.exit(2)
    if done.returncode:
        raise UserError(f"`python {' '.join(arguments)}` ended with code {done.returncode}")
