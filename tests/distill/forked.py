"""Processes in a fraction of a second, forked: two that talk over gloo; one that imports only the project anew."""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState

from tests.conftest import REPOSITORY


def two_processes(work: Callable[[int], object], folder: Path) -> list[object]:
    """What `work(rank)` returns on each of two processes that see each other, and really are two."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_enter, args=(work, rank, port, folder)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        if process.is_alive():
            process.kill()
    codes = [process.exitcode for process in ranks]
    assert codes == [0, 0], f"exit codes {codes}; -9: still at work after a minute"
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


def _enter(work: Callable[[int], object], rank: int, port: int, folder: Path) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2"
    )
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=50))
    assert dist.get_world_size() == 2
    torch.save(work(rank), folder / f"rank-{rank}.pt")
    if dist.is_initialized():  # a run ends the group itself
        dist.barrier()
        dist.destroy_process_group()


def forget_the_project() -> None:
    """For a fork: the modules of the project are imported anew, in the order in which a fresh process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("data", "distill", "eval")]:
        del sys.modules[name]


def run_script(script: Path, arguments: list[str], log: Path) -> None:
    """For a fork: run a script as by itself, with its folder as the first of the path; what it prints goes to `log`."""
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.path[:] = [str(script.parent), *(each for each in sys.path if Path(each) != REPOSITORY)]
    sys.argv = [str(script), *arguments]
    forget_the_project()
    runpy.run_path(str(script), run_name="__main__")
