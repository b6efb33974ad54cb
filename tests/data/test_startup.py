"""The short start of a command: it changes what is loaded, never what works."""

import subprocess
import sys

SCRIPT = """
import sys
from data.startup import start
start()
assert not {"pandas", "scipy.linalg"} & set(sys.modules), "loaded all the same"
import pandas
import scipy.linalg
import pyarrow as pa
frame = pa.table({"a": [1, None], "b": ["x", None]}).to_pandas()
assert pa.Table.from_pandas(frame)["a"].to_pylist() == [1, None]
assert pa.array(pandas.Series([1, 2])).to_pylist() == [1, 2]
"""


def test_packages_that_are_only_looked_for_are_not_loaded_and_work_when_they_are_wanted() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
