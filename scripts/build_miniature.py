"""`python scripts/build_miniature.py --work runs/miniature --out DIR [--until clip]`: train the miniature's models.

With `--xl` the miniature SDXL, or with `--tuned` a fine-tuned checkpoint; both start from the first miniature.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # else scripts/ comes first and hides the packages

from jsonargparse import auto_cli  # noqa: E402

from data.cli import UserError, run_cli  # noqa: E402
from eval.miniature.build import BuildConfig, build_models  # noqa: E402
from eval.miniature.build_xl import TunedConfig, XlBuildConfig, build_tuned, build_xl  # noqa: E402


def main() -> None:
    """Read the command line and build."""
    arguments = [word for word in sys.argv[1:] if word not in ("--xl", "--tuned")]
    if {"--xl", "--tuned"} <= set(sys.argv):
        raise UserError("--xl, --tuned: two different models; give one of them")
    if "--xl" in sys.argv:
        build_xl(auto_cli(XlBuildConfig, args=arguments, as_positional=False, exit_on_error=False))
    elif "--tuned" in sys.argv:
        build_tuned(auto_cli(TunedConfig, args=arguments, as_positional=False, exit_on_error=False))
    else:
        build_models(auto_cli(BuildConfig, args=arguments, as_positional=False, exit_on_error=False))


if __name__ == "__main__":
    run_cli(main)
