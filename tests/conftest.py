"""Fixtures of all tests, and the last line of a test run: what was skipped, and how to run it."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers.utils.logging import disable_progress_bar

REPOSITORY = Path(__file__).parents[1]
torch.set_num_threads(1)  # sums in one order, whatever else the machine does; the tests run beside each other
os.environ.setdefault("OMP_NUM_THREADS", "1")  # and so in what they start


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real corpora, teacher and benchmarks that lies beside the repository on some machines."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"real material is not on this machine: no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_bars() -> None:
    """transformers' bars would stand among the lines that tests read on stderr."""
    disable_progress_bar()  # type: ignore[no-untyped-call]


def _skipped(reporter: pytest.TerminalReporter) -> Counter[str]:
    """Number of skipped tests by reason."""
    reasons = (report.longrepr[2] for report in reporter.stats.get("skipped", []))
    return Counter(reason.removeprefix("Skipped: ") for reason in reasons)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each reason of a skip."""
    for reason, count in _skipped(terminalreporter).items():
        terminalreporter.write_line(f"skipped {count}: {reason}", yellow=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail CI on a skipped test: there, everything that a test needs is installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and exitstatus == 0 and reporter is not None and _skipped(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
