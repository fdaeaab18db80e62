"""Writing a release's dataset card, next to publishing the release.

python -m tests.bench.bench_card [--rows 15000 60000]

Rows are random, so captions and sources have far more different words than real ones. Each card is made in a
process of its own, whose peak memory is printed beside what it had before.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from etl.card import read_card
from etl.card_html import card_html
from etl.card_markdown import card_markdown
from etl.lake import Lake
from etl.release import create_release
from schemas.policy import Policy
from tests.lake_rows import LABELS, fill, selected

PART = 15_000
"""Rows that are made at once."""


def peak() -> int:
    """Peak memory of this process, MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) // 1024 if found else 0


def card(place: str) -> None:
    release = Lake(place).release("1.0.0")
    before, start = peak(), time.perf_counter()
    made = read_card(release)
    counted = time.perf_counter()
    card_html(made), card_markdown(made)
    print(counted - start, time.perf_counter() - counted, before, peak())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[15_000, 60_000])
    parser.add_argument("--card", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.card:
        card(given.card)
        return
    for rows in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            lake = Lake.create(Path(folder) / "lake")
            for part in range(rows // PART):
                fill(lake, PART, seed=10 * part)
            chosen = selected(lake, Policy(name="all", rules=()))
            start = time.perf_counter()
            create_release(lake, "1.0.0", chosen, label_fingerprint=LABELS)
            created = time.perf_counter() - start
            command = [sys.executable, "-m", "tests.bench.bench_card", "--card", lake.url]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            count, write, before, after = map(float, said)
            print(
                f"{rows:,} rows: publishing 1, counting {count / created:.2f}, pages {write / created:.2f}; "
                f"peak memory {before:.0f} -> {after:.0f} MiB"
            )


if __name__ == "__main__":
    main()
