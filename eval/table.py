"""A result as a table for the terminal."""

import itertools

import numpy as np

from eval.result import Result, Row

ROLES = {("teacher", "en"): "ceiling", ("teacher", "zh"): "floor", ("teacher", "zh_hant"): "floor"}
HEADING = (
    f"{'model':10} {'captions':>14} | {'text to image':^17} | {'image to text':^17} | {'mean':>6}  95 % interval\n"
    f"{'':10} {'':>14} | {'R@1':>5} {'R@5':>5} {'R@10':>5} | {'R@1':>5} {'R@5':>5} {'R@10':>5} | {'recall':>6}"
)


def table(result: Result) -> str:
    """Rows with the interval of their mean recall, then the ratios, then what the numbers depend on."""
    settings = result.settings
    lines = [HEADING, "-" * 90]
    for domain, rows in itertools.groupby(result.rows, key=lambda row: row.domain):
        lines += [*([f"{domain}:"] if domain else []), *(_line(row) for row in rows)]
    lines.append("")
    for each in result.ratios:
        low, high = each.ci95
        lines.append(f"{each.name}: {each.percent:.2f} % of the mean recall [{low:.2f}, {high:.2f}]")
    lines.append(
        f"{settings['benchmark']}, gallery of {settings['images']} ({settings['transform']}), protocol "
        f"{settings['protocol']}, at most {settings['max_length']} tokens, {settings['precision']}, "
        f"{settings['seconds']:.1f} s"
    )
    return "\n".join(lines)


def _line(row: Row) -> str:
    six = [f"{score:5.1f}" for score in row.scores[:6]]
    low, high = np.nanpercentile(row.draws[:, 6], [2.5, 97.5])
    role = ROLES.get((row.model, row.language), "")
    return (
        f"{row.model:10} {row.captions:6} {row.language:>7} | {' '.join(six[:3])} | {' '.join(six[3:])} | "
        f"{row.scores[6]:6.2f}  [{low:.2f}, {high:.2f}]  {role}"
    ).rstrip()
