"""How figures look: drawn once, kept as SVG and PDF for a paper and as inline SVG for the page.

Sizes are those of a two-column paper (3.5 in a column, 7.16 in a page) with text of 7 to 8 points.
Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; what colour says is
also said by a dash, a hatch or a label. No pyplot and no global state: every figure is a
``Figure`` object of its own.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.16  # inches
SMOOTHING = 20  # the sliding window is this fraction of the training
MAX_POINTS = 400  # of a smoothed line: more cannot be seen in a column

INK, MUTED, GRID = "#1b2733", "#5d6976", "#d9dee3"
BLUE, HEAT, OUTLINE = "#0072b2", "#0a6aa8", "#e0730a"
LIGHT_GREY, SLATE = "#9aa3ab", "#46525e"
OTHER_COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("solid", (0, (4, 1.2)), (0, (1.2, 1.2)), "dashdot", (0, (6, 1, 1, 1, 1, 1)))
# On the page these colours follow the light or dark scheme.
PAGE_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    BLUE: "var(--blue)",
    SLATE: "var(--slate)",
}

STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.formatter.use_mathtext": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",  # ships with Matplotlib, so that figures are the same everywhere
    "font.size": 8,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "rlli_jax",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7.5,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
}


Drawing = tuple[str, str, Figure]
"""A figure's file name without ending, its title, and what was drawn in ``STYLE``."""


@dataclass(frozen=True)
class SavedFigure:
    """One finished figure."""

    name: str  # file name without ending
    title: str
    svg: str
    pdf: bytes
    width: float  # inches

    def inline(self) -> str:
        """The SVG for an HTML page: own ids, the page's colours, a label for screen readers."""
        svg = self.svg[self.svg.index("<svg") :]
        head, body = svg.split(">", 1)
        box = re.search(r'viewBox="[^"]*"', head)
        assert box is not None
        body = re.sub(r'\bid="([^"]+)"', rf'id="{self.name}-\1"', body)
        body = re.sub(r'(url\(#|href="#)', rf"\g<1>{self.name}-", body)
        for colour, variable in PAGE_COLOURS.items():
            body = body.replace(colour, variable)
        label = self.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        return f'<svg {box[0]} role="img" aria-label="{label}">{body}'


def saved(name: str, title: str, figure: Figure) -> SavedFigure:
    """A figure that was drawn in ``STYLE``, as it is kept and shown."""
    svg, pdf = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    figure.set_layout_engine("none")  # the layout is settled; do not solve it again
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    text = svg.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    return SavedFigure(name, title, text, pdf.getvalue(), figure.get_figwidth())


def level(axes: Axes, name: str, value: float, dash: Any, height: float) -> None:
    """A line across at ``value``, and its name right of the axes at ``height``."""
    axes.axhline(value, color=INK, linewidth=0.8, linestyle=dash, zorder=1.5)
    axes.annotate(
        name,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=INK,
        annotation_clip=False,
    )


def legend(figure: Figure, columns: int) -> None:
    """One legend above the axes."""
    figure.legend(loc="outside upper left", ncols=columns, handlelength=2.4)


def legend_columns(labels: Sequence[str], inches: float) -> int:
    """How many columns of a legend fit a width: text at 7.5 points, and its handle."""
    return max(1, min(len(labels), int(inches / (0.066 * max(map(len, labels), default=1) + 0.6))))
