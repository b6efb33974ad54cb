"""What every command line of the project shares: one clear line for a mistake that the user can mend."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def command(main: Callable[[], None]) -> None:
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
