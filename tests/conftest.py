"""Fixtures of all tests, and the last line of a test run: what was skipped, and how to run it."""

import gc
import os
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums in one order, whatever else the machine does
# Long ones, so that no worker is left with one at the end; the first compiles the loops of the build for all that
# follow, the second needs none of them.
FIRST = (
    "data/clean/test_cleaning.py", "distill/train/test_training.py", "test_golden_hashes.py", "eval/demo/test_demo.py",
    "test_docs_commands.py",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist give out files in the order of `pytest_collection_modifyitems`, not by their number of tests."""
    config.option.loadscopereorder = False
    gc.disable()  # an eighth of the time in which all is imported, and what is imported stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of `FIRST` come first, the others in the order in which they were found."""
    ranks = {REPOSITORY / "tests" / name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real corpora, teacher and benchmarks that lies beside the repository on some machines."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"real material is not on this machine: no folder {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread_and_no_bars() -> None:
    """The tests run beside each other; transformers' bars would stand among the lines that tests read on stderr."""
    import torch  # here, because the process that gives out the tests needs neither
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(1)
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
