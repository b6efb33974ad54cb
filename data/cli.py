"""What is wrong with a configuration, said by the name of the key and with the fix.

What every command line of the project shares: one clear line for a mistake that the user can mend.

Runs one of the project's commands as a stage of a longer way.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError


class UserError(Exception):
    """A mistake that the user can mend; the message names the file, line or key and the fix."""


def one_line(error: Exception) -> str:
    """What an error says on one line of at most 200 characters; its class where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Make a panic of a library in Rust, as of tokenizers on a damaged file, a RuntimeError: it is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error


def run_cli(main: Callable[[], None]) -> None:
    """Run `main`; print a user's mistake as one line on stderr and exit with code 2.

    Parsers passed to jsonargparse must be built with `exit_on_error=False` for their errors to come here.
    """
    try:
        main()
    except (UserError, ArgumentError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped by the keyboard; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def check_file(path: Path, schema: type) -> None:
    """Refuse a YAML file whose keys are not those of the dataclass `schema`; values are left to the parser."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--config: no such file {str(path)!r} (looked in {Path.cwd()})") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--config: {path} is not readable as YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"--config: {path} holds no keys; it needs {', '.join(get_type_hints(schema))}")
    _check_keys(tree, schema, "")


def _check_keys(tree: dict[str, Any], schema: type, prefix: str) -> None:
    hints = get_type_hints(schema)
    for key, value in tree.items():
        if key not in hints:
            raise UserError(f"{prefix}{key}: no such key; there are {', '.join(hints)}")
        types = get_args(hints[key]) or (hints[key],)
        for kind in (kind for kind in types if isinstance(kind, type) and is_dataclass(kind)):
            if isinstance(value, dict):
                _check_keys(value, kind, f"{prefix}{key}.")
            elif get_origin(hints[key]) is list and isinstance(value, list):
                for place, entry in enumerate(value):
                    _check_keys(
                        entry if isinstance(entry, dict) else {str(entry): None}, kind, f"{prefix}{key}.{place}."
                    )
            elif value is not None or NoneType not in types:
                keys = ", ".join(get_type_hints(kind))
                raise UserError(f"{prefix}{key}: {value!r} is no mapping; its keys are {keys}")


def readable(message: str) -> str:
    """The parser's `message` as one short line that begins with the key."""
    text = " ".join(message.split())
    if match := re.match(r"the following arguments are required: (.*)", text):
        keys = match[1].split(", ")
        options = " ".join(f"--{key} ..." for key in keys)
        return f"{match[1]}: missing; write it into the file of --config FILE.yaml, or give {options}"
    if match := re.match(r"unrecognized arguments: (.*)", text):
        return f"{match[1].split()[0]}: no such option; --help lists them"
    if match := re.search(r"Errors: - ([\w.]+: .*?) - Expected a", text):
        return match[1]
    match = re.match(r'Parser key "([^"]+)": (.*)', text)
    if not match:
        return text
    key, reason = match[1], match[2]
    optional = "Union subtypes" in reason
    # A dataclass or null: the reason that counts lies inside, behind the dataclass.
    if inner := re.search(r'class_path \S+ Parser key "([^"]+)": (.*?) - Expected a', reason):
        key, reason, optional = f"{key}.{inner[1]}", inner[2], False
    elif inner := re.search(r"class_path \S+ Option '([^']+)' is not accepted", reason):
        return f"{key}.{inner[1]}: no such key"
    if expected := re.search(r"Expected a typing\.Literal\[(.*?)\]\.? Got value: (.*)", reason):
        return f"{key}: {expected[2]!r} is none of {expected[1]}"
    if expected := re.search(r"Expected a <class '(\w+)'>(?:\.? Got value: (.*?))?(?: - |$)", reason):
        found = f", not {expected[2]!r}" if expected[2] else ""
        return f"{key}: must be of type {expected[1]}{' or null' if optional else ''}{found}"
    return f"{key}: must be a mapping of keys or null" if optional else f"{key}: {reason}"


REPOSITORY = Path(__file__).resolve().parents[1]
# What libraries say of themselves while loading would hide the lines that matter.
QUIET_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


def run_subcommand(*arguments: str) -> None:
    """`python ARGUMENTS` in the repository; a mistake, which its own line has told, ends this process too."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    completed = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=QUIET_ENVIRONMENT | os.environ, check=False
    )
    if completed.returncode == 2:
        sys.exit(2)
    if completed.returncode:
        raise UserError(f"`python {' '.join(arguments)}` ended with code {completed.returncode}")
