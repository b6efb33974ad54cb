"""Image features that were made elsewhere: an .npz with `ids` [images] and `features` [images, dim]."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.command import UserError, one_line
from eval.retrieval import normalised


def stored_features(path: Path, images: Sequence[str], width: int) -> NDArray[np.float32]:
    """[images, dim]: the features of `images`, in their order, L2-normalised; `width` is that of the text tower."""
    ids, features = _arrays(path)
    if features.shape[1] != width:
        raise UserError(
            f"{path}: features of width {features.shape[1]}, but the text tower of --clip has width {width}; "
            "they are not of one model"
        )
    row = {name: number for number, name in enumerate(ids)}
    if len(row) != len(ids):
        raise UserError(f"{path}: ids holds {len(ids) - len(row)} names twice")
    missing = [name for name in images if name not in row]
    if missing:
        raise UserError(
            f"{path}: no features of {len(missing)} of {len(images)} images, {missing[0]!r} first (its own first is "
            f"{ids[0]!r})"
        )
    try:
        return normalised(features[[row[name] for name in images]].astype(np.float32))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _arrays(path: Path) -> tuple[list[str], NDArray[np.floating]]:
    if not path.is_file():
        raise UserError(f"--image-features {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            ids, features = archive["ids"], archive["features"]
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}; it needs the arrays ids and features") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        said = f"not a readable .npz ({one_line(error)})"
        raise UserError(f"{path}: {said}; save it with numpy.savez and no objects") from error
    if features.ndim != 2 or ids.ndim != 1 or len(ids) != len(features) or len(ids) == 0:
        raise UserError(f"{path}: ids {ids.shape} and features {features.shape} must be [images] and [images, dim]")
    return [str(name) for name in ids], features
