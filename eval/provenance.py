"""Provenance of a result: command line, hashes of files, commit of this code, releases of libraries."""

import hashlib
import importlib.metadata
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """File -> SHA-256; paths that are no files are left out."""
    return {str(path): sha256(path) for path in paths if path.is_file()}


def model_files(source: str) -> list[Path]:
    """The files of a model's folder that decide its scores, or the ONNX file itself; none for a Hub id."""
    folder = Path(source)
    if folder.suffix == ".onnx":
        return [folder]
    names = ("config.json", "tokenizer.json", "vocab.json", "merges.txt", "preprocessor_config.json")
    return sorted([*folder.glob("*.safetensors"), *(folder / name for name in names if (folder / name).is_file())])


def command_line(module: str, arguments: list[str] | None) -> str:
    """The command, quoted for a shell; of `sys.argv` where `arguments` is None."""
    return shlex.join(["python", "-m", *module.split(), *(sys.argv[1:] if arguments is None else arguments)])


def commit() -> str:
    """The commit of this code, with "+changes" where tracked files differ; the package's version outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        described = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20, check=True
        )
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
