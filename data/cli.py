"""What every command line shares: one-line errors with exit code 2, YAML configurations, subprocesses, provenance."""

import importlib.metadata
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

REPOSITORY = Path(__file__).resolve().parents[1]
# What libraries print while loading would hide the lines that matter.
QUIET_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
ConfigClass = TypeVar("ConfigClass")
Tree = dict[str, Any]


class UserError(Exception):
    """A mistake that the user can fix; the message names the file, line or key and the fix."""


def one_line(error: Exception) -> str:
    """The message of an error on one line of at most 200 characters; its class where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic of a library in Rust (tokenizers on a damaged file), which is no Exception, into a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error


def run_cli(main: Callable[[], object]) -> None:
    """Run `main`; print a user's mistake as one line on stderr and exit with code 2.

    Parsers passed to jsonargparse must be built with `exit_on_error=False` for their errors to come here.
    Characters that the terminal or the pipe cannot take are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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


def read_yaml(path: Path, schema: type[ConfigClass], option: str) -> ConfigClass:
    """The configuration in a YAML file as an instance of the dataclass `schema`; `option` names the file in errors."""
    return checked_config(load_yaml(path, option), schema, f"{path}: ")


def load_yaml(path: Path, option: str) -> Tree:
    """The keys and values of a YAML file; UserError begins with `option`, such as "--config"."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{option}: no such file {str(path)!r} (looked in {Path.cwd()})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option}: {path} is not UTF-8 ({error.reason} at byte {error.start}); save it so") from error
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{option}: {path} is not readable as YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{option}: {path} holds no keys; see configs/ for examples")
    return tree


def checked_config(tree: Tree, schema: type[ConfigClass], where: str = "") -> ConfigClass:
    """`tree`, as YAML gives it, as an instance of the dataclass `schema`; UserError reads `where` KEY.PATH: what; fix.

    A quoted value stays text; 1e-4, which YAML takes for text, is a number where a number belongs.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # eval.golden runs beside old releases, without it

    # A list, because its settings hold for the dataclasses inside; those of a dataclass cannot be given from outside.
    adapter = TypeAdapter(list[schema], config=ConfigDict(extra="forbid"))  # type: ignore[valid-type]
    try:
        return adapter.validate_python([tree])[0]
    except ValidationError as error:
        raise UserError(where + _first_error(error.errors(include_url=False), schema)) from error


def _first_error(errors: "Sequence[ErrorDetails]", schema: type) -> str:
    """An unknown key before a wrong value before those that are missing."""
    ranks = {"unexpected_keyword_argument": 0, "missing": 2}
    errors = sorted(errors, key=lambda error: ranks.get(error["type"], 1))
    if errors[0]["type"] == "missing":
        keys = [_required_key([str(part) for part in error["loc"][1:]], schema) for error in errors]
        options = " ".join(f"--{key} ..." for key in keys)
        return f"{', '.join(keys)}: missing; write it into the file of --config FILE.yaml, or give {options}"
    return _message(errors[0], schema)


def _message(error: "ErrorDetails", schema: type) -> str:
    location = error["loc"][1:]
    key, hint, value = ".".join(map(str, location)), _type_at(location, schema), error["input"]
    if error["type"] == "unexpected_keyword_argument":
        return f"{key}: no such key; there are {', '.join(_keys(_type_at(location[:-1], schema)))}"
    if error["type"] == "dataclass_type":
        return f"{key}: {value!r} is no mapping; its keys are {', '.join(_keys(hint))}"
    if error["type"] == "literal_error":
        return f"{key}: {value!r} is none of {error['ctx']['expected'].replace(' or ', ', ')}"
    if error["type"] == "value_error":  # raised by a __post_init__, which may name the key itself
        message = str(error["ctx"]["error"])
        return message if not key or message.startswith(str(location[0])) else f"{key}: {message}"
    expected = _EXPECTED.get(error["type"].partition("_")[0], error["msg"])
    fix = "; put it in quotes" if expected == "text" and isinstance(value, int | float) else ""
    return f"{key}: must be {expected}{' or null' if NoneType in get_args(hint) else ''}, not {value!r}{fix}"


_EXPECTED = {
    "float": "a number", "finite": "a finite number", "int": "a whole number", "bool": "true or false",
    "string": "text", "path": "a path", "dict": "a mapping", "list": "a list", "tuple": "a list",
}  # fmt: skip


def _type_at(location: Sequence[str | int], schema: object) -> object:
    """The type of the value at a place of a dataclass; None inside mappings."""
    for part in (part for part in location if isinstance(part, str)):  # a number is an index into list[X]
        dataclass = _dataclass_of(schema)
        schema = get_type_hints(dataclass).get(part) if dataclass else None
    return schema


def _dataclass_of(hint: object) -> type | None:
    """The dataclass in X, X | None or list[X]."""
    options = [hint, *get_args(hint)]
    return next((option for option in options if isinstance(option, type) and is_dataclass(option)), None)


def _keys(hint: object) -> list[str]:
    dataclass = _dataclass_of(hint)
    return list(get_type_hints(dataclass)) if dataclass else []


def _required_key(location: list[str], schema: type) -> str:
    """The full key of a missing value: of a missing mapping, the first key that has no default."""
    while dataclass := _dataclass_of(_type_at(location, schema)):
        required = [f.name for f in fields(dataclass) if f.default is MISSING and f.default_factory is MISSING]
        location = [*location, required[0]]
    return ".".join(location)


def merged(tree: Tree, other: Mapping[str, Any], schema: object) -> Tree:
    """`tree` with the values of `other`: dataclasses key by key, other mappings as a whole."""
    result = dict(tree)
    for key, value in other.items():
        hint = _type_at([key], schema)
        both_mappings = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value, hint) if both_mappings and _dataclass_of(hint) else value
    return result


def overridden(tree: Tree, option: str, text: str) -> Tree:
    """`tree` with the value of a command-line option: a.b.c names the key, `[...]`, `{...}` and null are YAML."""
    try:
        value = yaml.safe_load(text) if text[:1] in ("{", "[") or text == "null" else text
    except yaml.YAMLError as error:
        raise UserError(f"{option}: {text!r} is not YAML: {error}") from error
    key, _, rest = option.partition(".")
    inner = tree.get(key)
    return {**tree, key: overridden(inner if isinstance(inner, dict) else {}, rest, text) if rest else value}


def run_subcommand(*arguments: str) -> None:
    """Run `python ARGUMENTS` in the repository; a user's mistake, already printed, ends this process too."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    completed = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=QUIET_ENVIRONMENT | os.environ, check=False
    )
    if completed.returncode == 2:
        sys.exit(2)
    if completed.returncode:
        raise UserError(f"`python {' '.join(arguments)}` ended with code {completed.returncode}")


def command_line(module: str, arguments: list[str] | None) -> str:
    """The command, quoted for a shell; of `sys.argv` where `arguments` is None."""
    return shlex.join(["python", "-m", *module.split(), *(sys.argv[1:] if arguments is None else arguments)])


def commit() -> str:
    """The commit of this code, with "+changes" where tracked files differ; the package's version outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=True)
        return described.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        try:
            return f"yuqiao {importlib.metadata.version('yuqiao')}"
        except importlib.metadata.PackageNotFoundError:
            return "unknown"


def versions() -> dict[str, str]:
    """The releases of the libraries that a score may depend on."""
    names = ("numpy", "pillow", "tokenizers", "torch", "transformers")
    return {name: importlib.metadata.version(name) for name in names}
