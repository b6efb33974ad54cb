"""Reading a JSON file that the user named."""

import json
from pathlib import Path
from typing import Any

from data.command import UserError, one_line


def read_json(path: Path) -> Any:  # noqa: ANN401  any JSON
    """The content of `path`; UserError where it is not there or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits; nested without end
        raise UserError(f"{path}: not JSON in UTF-8 ({one_line(error)}); is the file cut short?") from error
