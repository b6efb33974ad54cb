"""`scripts/distill.py`: parse, prepare, train, close."""

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, set_seed

from data.cli import UserError
from data.files import file_lock
from distill.train.config import RunConfig
from distill.train.memory import memory_line
from distill.train.pair import parse_runs
from distill.train.run_folder import with_precision
from distill.train.setup import PreparedRun, build_setup, prepare_run
from distill.train.trainer import DivergedError, Trainer

_TOKENIZE_TIMEOUT = timedelta(days=1)  # the other ranks wait while the main process tokenises, hours for a large corpus


def main() -> None:
    """Train the run of `--config FILE.yaml`, or both of SDXL's encoders, one by one; the same command resumes it."""
    try:
        runs = parse_runs()
        for tracker in runs[0].train.trackers:
            if find_spec(tracker) is None:
                raise UserError(f"train.trackers: {tracker} is not installed; pip install {tracker}, or leave it out")
    except UserError:
        if os.environ.get("LOCAL_RANK", "0") != "0":  # every process parses; one prints
            sys.exit(2)
        raise
    accelerator = make_accelerator(runs[0])
    for run in runs:
        with ExitStack() as lock:
            if not _run(run, accelerator, lock):
                break
    else:
        if accelerator.is_main_process:
            folder = runs[0].out_dir if len(runs) == 1 else runs[0].out_dir.parent
            print(f"next: python scripts/export.py --run {folder} --out STUDENT")
    accelerator.end_training()


def make_accelerator(config: RunConfig) -> Accelerator:
    """The run's trackers on whatever was launched; the trainer itself casts, averages and accumulates gradients."""
    return Accelerator(
        mixed_precision="no",
        log_with=config.train.trackers or None,
        project_dir=config.out_dir,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_TOKENIZE_TIMEOUT)],
    )


def _run(run: RunConfig, accelerator: Accelerator, lock: ExitStack) -> bool:
    """Prepare on the main process, then train on all; whether the run is at its end, or was stopped."""
    set_seed(run.train.seed)
    config, prepared = _prepare(run, accelerator, lock)
    if config.train.trackers:
        accelerator.init_trackers("yuqiao", config={"config": config.to_yaml()})
    with ExitStack() as failed:
        failed.callback(accelerator.end_training)
        try:
            setup = build_setup(config, accelerator, prepared.store, prepared.pretrained, prepared.graft)
            if accelerator.is_main_process and (expected := setup.expected_memory(config, accelerator.num_processes)):
                print(memory_line(expected, config.train.tokens_at_once), flush=True)
            progress = Trainer(setup, config.train, accelerator, config.out_dir).train()
        except DivergedError as error:
            raise UserError(str(error)) from error
        except torch.OutOfMemoryError as error:
            budget = config.train.tokens_at_once or "all"
            raise UserError(
                f"train.tokens_at_once: out of memory on {accelerator.device} with {budget} token positions at once; "
                "set it to a smaller number, or train.recompute: true"
            ) from error
        failed.pop_all()  # the next run goes on with the same processes
    if accelerator.is_main_process:
        print(f"{config.out_dir}: step {progress.step} of {config.train.steps}, {progress.pairs} pairs")
        if progress.step < config.train.steps:
            print(f"stopped and saved; the same command goes on from step {progress.step}")
    return progress.step == config.train.steps


def _prepare(run: RunConfig, accelerator: Accelerator, lock: ExitStack) -> tuple[RunConfig, PreparedRun]:
    """Prepare on the main process; where it finds a mistake, the others end without a message."""
    verdict: list[str] = ["", "", ""]
    prepared: PreparedRun | None = None
    mistake: UserError | OSError | None = None
    if accelerator.is_main_process:
        try:
            folder = run.out_dir
            busy = f"out_dir: another process trains in {folder}; wait for it, stop it, or name another folder"
            lock.enter_context(file_lock(folder, busy))
            run = with_precision(run, accelerator.device)
            prepared = prepare_run(run, accelerator.num_processes)
            verdict = ["", str(prepared.store), run.train.precision]
        except (UserError, OSError) as error:
            mistake, verdict[0] = error, str(error) or type(error).__name__
    broadcast_object_list(verdict)
    message, store, precision = verdict
    if message:
        _tell_launcher(message)
        raise mistake or SystemExit(2)
    run = replace(run, train=replace(run.train, precision=precision))  # type: ignore[arg-type]
    if accelerator.is_main_process:
        print(f"training on {accelerator.num_processes} x {accelerator.device.type} in {precision}", flush=True)
    return run, prepared or PreparedRun(Path(store), run.load_teacher())


def _tell_launcher(message: str) -> None:
    """Make `message` the last lines of torchrun's report; every process then ends by itself, with exit code 2."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, as soon as one process has ended
        line = "error: " + " ".join(message.split())
        details = {"py_callstack": line, "timestamp": str(int(time.time()))}
        Path(path).write_text(json.dumps({"message": {"message": line, "extraInfo": details}}), encoding="utf-8")
