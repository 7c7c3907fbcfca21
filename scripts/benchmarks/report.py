"""What a benchmark says: medians with their spread, and ratios between measurements of the same run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.table import Table

LOAD = os.getloadavg()[0]
"""Of the minute before the benchmark: well above 0, and somebody else was measured too."""


class Report:
    """One question and its answers. A row has two sides, measured in turn, one value a round for each."""

    def __init__(self, question: str, ours: str, peer: str) -> None:
        self.question = question
        self.ours, self.peer = ours, peer
        self._rows: list[dict[str, object]] = []
        self._table = Table(caption_justify="left")
        self._table.add_column("")
        for heading in (_short(ours), _short(peer), f"{_short(ours)} : {_short(peer)}"):
            self._table.add_column(heading, justify="right")

    def add(self, what: str, unit: str, ours: Sequence[float], peer: Sequence[float], **details: object) -> float:
        """A row. Its ratio is the median of the rounds' ratios: a slow minute of the machine cancels out."""
        ratios = [a / b for a, b in zip(ours, peer, strict=True)]
        self._table.add_row(f"{what} ({unit})", _spread(ours), _spread(peer), _spread(ratios))
        self._rows.append(
            {"what": what, "unit": unit, "ours": list(ours), "peer": list(peer), "ratios": ratios}
            | {"ours_median": statistics.median(ours), "peer_median": statistics.median(peer)}
            | {"ratio": statistics.median(ratios), "details": details}
        )
        return statistics.median(ratios)

    def finish(self, json_file: Path | None) -> None:
        """Prints the table, and writes the JSON where asked."""
        self._table.caption = "median (least to most)"
        # A pipe has no width of its own.
        console = Console() if sys.stdout.isatty() else Console(width=120)
        console.print(f"\n{self.question}: {self.ours} against {self.peer}", highlight=False)
        console.print(self._table)
        if json_file is not None:
            machine = {
                "cores": os.cpu_count(),
                "load_before": LOAD,
                "machine": platform.machine(),
                "python": platform.python_version(),
            }
            answer = {"question": self.question, "ours": self.ours, "peer": self.peer, "machine": machine}
            json_file.write_text(json.dumps(answer | {"rows": self._rows}, indent=2) + "\n")


def _short(name: str) -> str:
    """`peer (FastAPI, …)` -> `peer`."""
    return name.partition(" (")[0]


def _spread(values: Sequence[float]) -> str:
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def arguments(
    doc: str | None, more: Callable[[argparse.ArgumentParser], None] | None = None, *, rounds: int = 5
) -> argparse.Namespace:
    """The command line: --rounds and --json for everybody, and `more`.

    From here on SIGINT and SIGTERM end the program by an exception, also where a shell had SIGINT ignored, so that
    what it started is stopped.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each is measured ({rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    if more is not None:
        more(parser)
    return parser.parse_args()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def progress(text: str) -> None:
    """A line about what is under way, on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)
