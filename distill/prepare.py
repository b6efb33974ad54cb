"""`python -m distill.prepare --config FILE.yaml`: tokenizer and token store of a run, on a machine without a GPU.

Of both runs, where the configuration has `stages`. The trainer finds them in a run's folder, or in data.token_store.
A killed preparation goes on where it was.
"""

import os
import sys
from collections.abc import Sequence

from data.cli import UserError, run_cli
from data.files import file_lock
from distill.train.pair import parse_runs
from distill.train.setup import prepare_run


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the run of the options that `scripts/distill.py` takes.

    `--processes N` is the number of cores to use; by default all.
    """
    if {"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments):
        print("prepare: --processes N, the number of cores to use (all by default), and the options of the run:\n")
    options, processes = _without_processes(list(sys.argv[1:] if arguments is None else arguments))
    for config in parse_runs(options):
        folder = config.out_dir
        with file_lock(folder, f"out_dir: another process prepares or trains {folder}; wait for it"):
            print(f"prepared {prepare_run(config, 1, processes).store}")
    print(f"next: python scripts/distill.py {' '.join(options)}")


def _without_processes(options: list[str]) -> tuple[list[str], int]:
    """The other options, and the value of `--processes`: all cores by default."""
    for place, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name == "--processes":
            value = value if equals else "".join(options[place + 1 : place + 2])
            if not value.isdigit() or int(value) < 1:
                raise UserError(f"--processes {value}: give a number of processes from 1 on")
            return options[:place] + options[place + (1 if equals else 2) :], int(value)
    return options, os.cpu_count() or 1


if __name__ == "__main__":
    run_cli(main)
