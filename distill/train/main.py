"""`scripts/distill.py`: parse, prepare, train, close."""

from contextlib import nullcontext
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, set_seed

from data.cli import UserError
from data.files import file_lock
from distill.train.config import ResolvedConfig, RunConfig, parse_config
from distill.train.setup import build_setup, prepare_run
from distill.train.trainer import DivergedError, Trainer

_TOKENIZE_TIMEOUT = timedelta(days=1)  # the other ranks wait while the main process tokenises, hours for a large corpus


def main() -> None:
    """Train the run of `--config FILE.yaml`; the same command resumes it."""
    resolved = parse_config()
    config = resolved.run
    for tracker in config.train.trackers:
        if find_spec(tracker) is None:
            raise UserError(f"train.trackers: {tracker} is not installed; pip install {tracker}, or leave it out")
    accelerator = make_accelerator(config)
    folder = config.out_dir
    busy = f"out_dir: another process trains in {folder}; wait for it, stop it, or name another folder"
    with file_lock(folder, busy) if accelerator.is_main_process else nullcontext():
        _run(resolved, accelerator)


def make_accelerator(config: RunConfig) -> Accelerator:
    """The run's precision and trackers on whatever was launched."""
    # Where no loss looks at the pooled state, the projection has no gradient, and DDP must be told; xlmr's projection
    # of the states has none on tight steps.
    has_unused_parameters = not config.losses.uses_pooled or config.student.xlmr is not None
    return Accelerator(
        mixed_precision="bf16" if config.train.precision == "bf16" else "no",
        log_with=config.train.trackers or None,
        project_dir=config.out_dir,
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=has_unused_parameters, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=_TOKENIZE_TIMEOUT),
        ],
    )


def _run(resolved: ResolvedConfig, accelerator: Accelerator) -> None:
    """Prepare on the main process, then train on all."""
    config = resolved.run
    set_seed(config.train.seed)
    # The main process alone prepares; where that fails it exits, and the launcher ends the others.
    prepared = prepare_run(resolved, accelerator.num_processes) if accelerator.is_main_process else None
    store = [str(prepared.store) if prepared else ""]
    broadcast_object_list(store)
    pretrained = prepared.pretrained if prepared else config.load_teacher()
    if config.train.trackers:
        accelerator.init_trackers("yuqiao", config={"config": resolved.yaml})
    setup = build_setup(config, accelerator, Path(store[0]), pretrained)
    trainer = Trainer(setup, config.train, accelerator, config.out_dir)
    try:
        progress = trainer.train()
    except DivergedError as error:
        raise UserError(str(error)) from error
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        print(f"{config.out_dir}: step {progress.step} of {config.train.steps}, {progress.pairs} pairs")
        print(f"next: python scripts/export.py --run {config.out_dir} --out STUDENT")
