"""What all figures share: colours, sizes, and bytes of PNG without any global state."""

from __future__ import annotations

import io
import struct
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = [
    "GREY",
    "INK",
    "SIZE",
    "STUDENT",
    "TEACHER",
    "canvas",
    "message",
    "png",
    "png_size",
    "tidy",
]

TEACHER, STUDENT = "#1f5a94", "#c2570c"  # Told apart with any colour vision, and in grey.
INK, GREY = "#1c2430", "#69727d"
SIZE = 8.0
# A CSS pixel is 1/96 inch; twice that, so that the figure is sharp on a dense screen.
DENSITY = 2
DPI = 96 * DENSITY


def canvas(width: float, height: float) -> Figure:
    """A figure of a size in inches, on the Agg canvas: pyplot and its global list stay out.

    Example:
      >>> canvas(4.0, 2.0).get_size_inches().tolist()
      [4.0, 2.0]
    """
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure, cut to what is drawn, at twice the density of CSS pixels.

    Example:
      >>> png(canvas(1.0, 1.0))[1:4]
      b'PNG'
    """
    buffer = io.BytesIO()
    # Without matplotlib's version in the file, equal figures are equal bytes.
    options: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, **options)
    return buffer.getvalue()


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height in CSS pixels, from the header of a PNG made by `png`.

    Example:
      >>> figure = canvas(1.0, 1.0)
      >>> _ = figure.add_axes((0, 0, 1, 1))
      >>> png_size(png(figure))[0] > 90
      True
    """
    width, height = struct.unpack(">II", data[16:24])
    return width // DENSITY, height // DENSITY


def message(text: str) -> bytes:
    """A figure that says why there is nothing to draw.

    Example:
      >>> message("no pairs")[1:4]
      b'PNG'
    """
    figure = canvas(6.0, 0.8)
    figure.text(
        0.5, 0.5, text, ha="center", va="center", size=SIZE + 1, color=GREY, parse_math=False
    )
    return png(figure)


def tidy(axes: Any, *, grid: str = "") -> None:
    """Small grey ticks, no frame on top and right, and a light grid along one axis.

    Example:
      >>> axes = canvas(1.0, 1.0).add_axes((0, 0, 1, 1))
      >>> tidy(axes, grid="x")
      >>> axes.spines["top"].get_visible()
      False
    """
    axes.tick_params(which="both", labelsize=SIZE, length=2.5, color=GREY, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(GREY)
    if grid:
        axes.grid(axis=grid, color="#e4e7ea", linewidth=0.8)
        axes.set_axisbelow(True)
