"""Curves laid over each other, as what an inline SVG needs: points, and the ends of both axes."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 76, 12, 12, 28  # room for the axes' numbers
MOST_POINTS = 400
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """`lines`: for each result its points as SVG has them, empty where it has none. Ticks: (place in px, text)."""

    title: str
    lines: list[str]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def chart(title: str, curves: Sequence[Points]) -> Chart:
    curves = [thinned(curve) for curve in curves]
    each_x, each_y = ([point[i] for curve in curves for point in curve] for i in (0, 1))
    (left, right), (low, high) = spanned(each_x), spanned(each_y)
    ends = (left, right) if len(set(each_x)) != 1 else each_x[:1]

    def x(value: float) -> float:
        return round(LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    return Chart(
        title,
        [line([(x(a), y(b)) for a, b in curve]) for curve in curves],
        [(x(value), f"{value:g}") for value in ends],
        [(y(value), short(value)) for value in (low, (low + high) / 2, high)],
    )


def short(value: float) -> str:
    """At most seven signs, which is what there is room for on a phone."""
    size = abs(value)
    return f"{value:.0e}" if 0 < size < 1e-3 else f"{value:.2g}" if size < 0.1 else f"{value:.3g}"


def line(points: Points) -> str:
    """As SVG has them; a single one as a dash, which can be seen."""
    if len(points) == 1:
        points = [(points[0][0] - 8, points[0][1]), (points[0][0] + 8, points[0][1])]
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def thinned(curve: Points) -> Points:
    """Every so many, and the last."""
    every = -(-len(curve) // MOST_POINTS) or 1
    return [*curve[:-1:every], *curve[-1:]]


def spanned(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest, never nearly the same: what differs by rounding alone is no rise."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high - low > 1e-5 * abs(high) else (low - 0.05 * abs(low or 1), high + 0.05 * abs(low or 1))
