"""What `import aeris` costs beside `import xarray` and `import torch`.

Each import is timed in fresh interpreters, in turn, so that all meet the same machine; medians are printed as a table.

    python benchmarks/import_time.py [rounds]
"""

from __future__ import annotations

import statistics
import subprocess
import sys

STATEMENTS = ("pass", "import aeris", "import xarray", "import torch")
TIMED = "import time; begin = time.perf_counter(); {}; print(time.perf_counter() - begin)"


def seconds(statement: str) -> float:
    """Time of one statement in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(rounds: int) -> None:
    """Prints the table."""
    for statement in STATEMENTS:
        seconds(statement)  # fills the cache of files
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))
    medians = {statement: statistics.median(values) for statement, values in times.items()}
    print(f"{'':<14} {'median':>10} {'least':>10} {'of xarray':>10}    {rounds} rounds, Python {sys.version.split()[0]}")
    for statement in STATEMENTS[1:]:
        median, least = medians[statement] * 1e3, min(times[statement]) * 1e3
        print(f"{statement:<14} {median:>7.1f} ms {least:>7.1f} ms {medians[statement] / medians['import xarray']:>9.1%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
