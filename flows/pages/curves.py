"""Prepares curves for an inline SVG chart: the points in pixels, and the ticks of both axes."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 76, 12, 12, 28  # margins in px, with room for the numbers of the axes
MAX_POINTS = 400
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart with one curve per result.

    Args:
        lines: for each result the points of its SVG polyline; an empty text if the result has no such curve.
        x_ticks, y_ticks: (position in px, text).
    """

    title: str
    lines: list[str]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def chart(title: str, curves: Sequence[Points]) -> Chart:
    curves = [thin_out(curve) for curve in curves]
    all_x, all_y = ([point[i] for curve in curves for point in curve] for i in (0, 1))
    (left, right), (low, high) = axis_range(all_x), axis_range(all_y)
    x_ticks = (left, right) if len(set(all_x)) != 1 else all_x[:1]

    def x(value: float) -> float:
        return round(LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    return Chart(
        title,
        [svg_points([(x(a), y(b)) for a, b in curve]) for curve in curves],
        [(x(value), f"{value:g}") for value in x_ticks],
        [(y(value), format_tick(value)) for value in (low, (low + high) / 2, high)],
    )


def format_tick(value: float) -> str:
    """Returns the number with at most seven characters, because there is no room for more on a phone."""
    size = abs(value)
    return f"{value:.0e}" if 0 < size < 1e-3 else f"{value:.2g}" if size < 0.1 else f"{value:.3g}"


def svg_points(points: Points) -> str:
    """Returns the points of an SVG polyline. A single point becomes a dash, which can be seen."""
    if len(points) == 1:
        points = [(points[0][0] - 8, points[0][1]), (points[0][0] + 8, points[0][1])]
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def thin_out(curve: Points) -> Points:
    """Returns about MAX_POINTS equally spaced points, and the last point."""
    stride = -(-len(curve) // MAX_POINTS) or 1
    return [*curve[:-1:stride], *curve[-1:]]


def axis_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the smallest and the largest value. Values that differ only by rounding get a wider range, so that their
    curve looks flat."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high - low > 1e-5 * abs(high) else (low - 0.05 * abs(low or 1), high + 0.05 * abs(low or 1))
