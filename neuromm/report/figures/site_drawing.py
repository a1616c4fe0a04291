"""A figure for a paper: as vectors and pixels, with its numbers, and in words.

Colours of models go from dark to light in the order of their lightness, so that they
stay apart in grey; marks and dashes tell them apart as well.
"""

import base64
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from neuromm.core.files import atomic_path
from neuromm.report.figures.canvas import Picture, canvas, png, style

__all__ = [
    "PALE",
    "SITE",
    "Drawing",
    "attrs_of",
    "counted",
    "finish",
    "is_stand_in",
    "label_outer",
    "model_dashes",
    "model_marks",
    "model_name",
    "site_colours",
    "titled_canvas",
]

SITE = "#333333"  # the colour of the joint model
PALE = "#C4C4C4"  # what is not a site

# Hues of Okabe & Ito, moved apart in lightness: L* of 21, 36, 59 and 72.
_OWN = {
    "joint": SITE,
    "vision": "#00588F",
    "linear": "#12A07C",
    "language": "#EBA51E",
}
_FURTHER = ("#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#B8A6D9", "#7F7F7F")
_MARKS = {"joint": "D", "vision": "o", "linear": "^", "language": "s"}
_FURTHER_MARKS = ("v", "P", "X", "<", ">", "h")
_DASHES: dict[str, Any] = {
    "joint": "-",
    "vision": (0, (5, 1.5)),
    "linear": (0, (1, 1.2)),
    "language": (0, (5, 1.5, 1, 1.5)),
}
_FURTHER_DASHES: tuple[Any, ...] = (
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 2)),
    (0, (1, 3)),
    (0, (8, 2, 2, 2)),
    (0, (4, 4)),
)

_SVG = {"svg.fonttype": "none", "svg.hashsalt": "neuromm"}
_KIND = "stand-in"  # as backbones say it
_STAND_IN = "stand-in features: no result about the brain"
_TITLE_STRIP = 0.3  # inches over the axes
_MARK_STRIP = 0.2
_MARK_LINE = 0.12
_MARK_LETTER = 0.06  # width, with some room


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        Made without pyplot; ``figure.axes`` may be changed before it is first saved.
    table : DataFrame
        The numbers that are drawn.
    alt : str
        What it shows, for those who cannot see it.
    caption : str
    """

    figure: Any
    table: pd.DataFrame
    alt: str
    caption: str

    @property
    def picture(self) -> Picture:
        """The figure as reports embed it."""
        return Picture(self.png, self.alt, self.caption)

    @cached_property
    def png(self) -> bytes:
        """Bitmap, the same bytes for the same numbers; drawn once."""
        with style():
            return png(self.figure)

    @property
    def svg(self) -> bytes:
        """Vector graphic, the same bytes for the same numbers; text stays text."""
        import matplotlib as mpl

        buffer = io.BytesIO()
        if "png" in self.__dict__:  # axes lie where they were laid for it
            self.figure.set_layout_engine("none")
        with style(), mpl.rc_context(_SVG):
            metadata = {"Date": None, "Creator": None, "Description": self.alt}
            self.figure.savefig(buffer, format="svg", dpi=200, metadata=metadata)
        return buffer.getvalue()

    def write(self, stem: str | Path) -> list[Path]:
        """Write ``<stem>.png``, ``<stem>.svg`` and ``<stem>.tsv``.

        Parameters
        ----------
        stem : path-like
            Path without an extension.

        Returns
        -------
        paths : list of Path
        """
        paths = [Path(f"{stem}{extension}") for extension in (".png", ".svg", ".tsv")]
        for path, content in zip(paths, (self.png, self.svg, self.tsv), strict=True):
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
        return paths

    @property
    def tsv(self) -> bytes:
        """The numbers, as BIDS writes tables."""
        text = self.table.to_csv(
            sep="\t",
            index=False,
            na_rep="n/a",
            float_format="%.6g",
            lineterminator="\n",
        )
        return text.encode()

    def _repr_html_(self) -> str:
        """Figure and caption for notebooks and the gallery."""
        data = base64.b64encode(self.png).decode("ascii")
        return (
            f'<figure style="margin:0"><img style="max-width:100%" '
            f'alt="{_safe(self.alt)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{_safe(self.caption)}</figcaption></figure>"
        )


def titled_canvas(
    width: float,
    height: float,
    title: str,
    attrs: Mapping[str, Any] | None,
    *,
    constrained: bool = True,
    mark: str = "",
) -> Any:
    """Empty figure with a title at the upper left, and the mark of stand-ins.

    Parameters
    ----------
    width, height : float
        Inches, of what is drawn below the title.
    title : str
        What is shown, in words.
    attrs : mapping or None
        How the scores were computed; see `is_stand_in`.
    constrained : bool
        Whether axes make room for their labels; if not, axes are placed in parts of the
        figure, and the mark stands beside the title.
    mark : str
        What else has to be said in the figure itself, such as that data are simulated.
    """
    mark = _STAND_IN if is_stand_in(attrs) else mark
    lines = textwrap.wrap(mark, max(20, int(width / _MARK_LETTER))) if mark else []
    strip = _TITLE_STRIP
    if lines and constrained:
        mark = "\n".join(lines)
        strip += _MARK_STRIP + _MARK_LINE * (len(lines) - 1)
    whole = height + strip
    figure = canvas(width, whole, constrained=constrained)
    if constrained:
        figure.get_layout_engine().set(rect=(0, 0, 1, height / whole))
    edge = 0.08
    figure.text(edge / width, 1 - edge / whole, title, ha="left", va="top", fontsize=10)
    if mark:
        under = constrained
        figure.text(
            (edge + 0.03) / width if under else 1 - edge / width,
            1 - (edge + (0.23 if under else 0.0)) / whole,
            mark,
            ha="left" if under else "right",
            va="top",
            fontsize=7,
            fontstyle="italic",
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": SITE, "lw": 0.6},
        )
    return figure


def label_outer(grid: Any, n_panels: int, below: str, beside: str) -> None:
    """Name the axes of the first column, and of the lowest panel of each column."""
    n_columns = grid.shape[1]
    for axes in grid[:, 0]:
        axes.set_ylabel(beside)
    for number, axes in enumerate(grid.ravel()[:n_panels]):
        if number + n_columns >= n_panels:
            axes.set_xlabel(below)
            axes.tick_params(labelbottom=True)


def finish(
    figure: Any,
    table: pd.DataFrame,
    *,
    alt: str,
    caption: str,
    attrs: Mapping[str, Any] | None,
) -> Drawing:
    """Put numbers and words beside a figure of `titled_canvas`."""
    if is_stand_in(attrs):
        caption = f"{caption} Computed from {_STAND_IN}."
        alt = f"{alt} Marked: {_STAND_IN}."
    return Drawing(figure, table.reset_index(drop=True), alt, caption)


def attrs_of(table: pd.DataFrame) -> dict[str, Any]:
    """Attributes of a table, by the names that are words."""
    return {str(name): value for name, value in table.attrs.items()}


def is_stand_in(attrs: Mapping[str, Any] | None) -> bool:
    """Whether attributes name a backbone that stands in for a trained one.

    Parameters
    ----------
    attrs : mapping or None
        ``stand_in`` (bool, or the names of the spaces), or ``kind`` "stand-in", as
        backbones say it, at any depth (such as one mapping a feature space).
    """
    if attrs is None:
        return False
    if bool(attrs.get("stand_in")) or str(attrs.get("kind")).lower() == _KIND:
        return True
    return any(is_stand_in(one) for one in attrs.values() if isinstance(one, Mapping))


def site_colours(models: Sequence[str]) -> dict[str, str]:
    """A colour a model, the same in all figures of sites."""
    return _assigned(models, _OWN, _FURTHER)


def model_marks(models: Sequence[str]) -> dict[str, str]:
    """A mark a model."""
    return _assigned(models, _MARKS, _FURTHER_MARKS)


def model_dashes(models: Sequence[str]) -> dict[str, Any]:
    """A dash pattern a model."""
    return _assigned(models, _DASHES, _FURTHER_DASHES)


def model_name(model: str) -> str:
    """A model's name for readers."""
    return "linear combination" if model == "linear" else model


def counted(number: int, plural: str) -> str:
    """A number with its noun, such as "1 contact" or "1,200 contacts"."""
    singular = {"vertices": "vertex"}.get(plural, plural.removesuffix("s"))
    return f"{number:,} {singular if number == 1 else plural}"


def _assigned(
    models: Iterable[str], own: Mapping[str, Any], further: Sequence[Any]
) -> dict[str, Any]:
    names = list(dict.fromkeys(models))
    others = [name for name in names if name not in own]
    rest = {name: further[i % len(further)] for i, name in enumerate(others)}
    return {name: own.get(name, rest.get(name)) for name in names}


def _safe(text: str) -> str:
    from html import escape

    return escape(text, quote=True)
