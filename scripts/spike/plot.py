"""The mornings side by side, as an SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scripts.spike.morning import Run, p99

Series = dict[str, list[tuple[float, float]]]
WIDTH, HEIGHT, LEFT, TOP, GAP = 460, 150, 60, 30, 60
COLOURS = ("#888888", "#1668b8", "#b84f16", "#2c8a3d")


def latency(run: Run) -> list[tuple[float, float]]:
    """The 99th percentile (s) of what fell due in each second."""
    by_second: dict[int, list[float]] = {}
    for answer in run.answers:
        by_second.setdefault(int(answer.due), []).append(answer.at - answer.due)
    return [(float(second), p99(found)) for second, found in sorted(by_second.items())]


def rates(run: Run) -> Series:
    """Requests a second."""
    found = run.rates()
    return {
        "due": [(float(s), due) for s, (due, _) in enumerate(found)],
        "answered": [(float(s), done) for s, (_, done) in enumerate(found)],
    }


def counts(run: Run) -> Series:
    """How many there are."""
    return {
        "gateways": [(s.at, float(s.gateways)) for s in run.samples],
        "shards": [(s.at, float(s.shards)) for s in run.samples],
        "nodes": [(s.at, float(s.nodes)) for s in run.samples],
    }


PANELS: Sequence[tuple[str, Callable[[Run], Series]]] = (
    ("Requests a second", rates),
    ("From due to answered, 99 % within (s)", lambda run: {"p99": latency(run)}),
    ("How many there are", counts),
    (
        "Requests at once: as they are, and expected",
        lambda run: {
            "at once": [(s.at, s.told.get("requests_at_once") or 0.0) for s in run.samples],
            "expected": [(s.at, s.told.get("expected_at_once") or 0.0) for s in run.samples],
        },
    ),
)


def plot(runs: Sequence[Run]) -> str:
    """A column a run, a row a question; rows have one scale."""
    out = []
    for row, (title, of) in enumerate(PANELS):
        top = 50 + row * (HEIGHT + TOP + GAP)
        drawn = [of(run) for run in runs]
        most = max((value for found in drawn for line in found.values() for _, value in line), default=1.0) or 1.0
        for column, (run, found) in enumerate(zip(runs, drawn, strict=True)):
            out += panel(title, found, most, run, LEFT + column * (WIDTH + LEFT + 20), top, named=column == 0)
    heads = [
        f'<text x="{LEFT + column * (WIDTH + LEFT + 20)}" y="24" font-size="17" font-weight="bold">{run.policy}</text>'
        for column, run in enumerate(runs)
    ]
    width, height = len(runs) * (WIDTH + LEFT + 20) + 20, 50 + len(PANELS) * (HEIGHT + TOP + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join([*heads, *out]) + "\n</svg>\n"
    )


def panel(title: str, found: Series, most: float, run: Run, left: int, top: int, named: bool) -> list[str]:
    """One chart, with the rush shaded."""
    span = max([run.shape.seconds, *(at for line in found.values() for at, _ in line)])

    def x(at: float) -> float:
        return left + WIDTH * at / span

    begin, end = x(run.shape.night_s), x(run.shape.rush_ends)
    out = [
        f'<text x="{left}" y="{top}" font-weight="bold">{title}</text>',
        f'<rect x="{begin:.1f}" y="{top + TOP}" width="{end - begin:.1f}" height="{HEIGHT}" fill="#f3efe4"/>',
    ]
    for part in (0.0, 0.5, 1.0):
        y = top + TOP + HEIGHT * (1 - part)
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="#8886"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{most * part:,.1f}</text>')
    for place, (name, line) in enumerate(found.items()):
        colour = COLOURS[place if len(found) > 1 else 1]
        points = " ".join(f"{x(at):.1f},{top + TOP + HEIGHT * (1 - value / most):.1f}" for at, value in line)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{points}"/>')
        if named:
            out.append(f'<text x="{left + 4 + 90 * place}" y="{top + 18}" fill="{colour}">{name}</text>')
    out.append(f'<text x="{left + WIDTH}" y="{top + TOP + HEIGHT + 18}" text-anchor="end">{span:.0f} s</text>')
    return out
