"""Charts as pieces of SVG that stand inside a page: its fonts, its colours, light and dark.

Hides matplotlib, and what its SVG needs before it is fit for a page: colours become the page's CSS
variables, words stay words, ids are unique in the page, and the same figures give the same bytes. Each
chart is drawn twice, for a wide screen and for a phone, because a wide one made small cannot be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDE = (540, 250)
PHONE = (340, 230)
_POINTS_PER_INCH = 72
# Each stands for a CSS variable of the page until the SVG is made: matplotlib only knows colours.
_INK = {
    "agent": "#0101a1",
    "baseline": "#0101a2",
    "allow": "#0101a3",
    "clip": "#0101a4",
    "escalate": "#0101a5",
    "deny": "#0101a6",
    "hold": "#0101a7",
    "plain": "#0101a8",
    "ink": "#0101a9",
    "faint": "#0101aa",
    "paper": "#0101ab",
    "recorded": "#0101ac",
    "draft": "#0101ad",
}
_SETTINGS: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "storekeep",
    "text.parse_math": False,
    "font.size": 12,
    "axes.edgecolor": _INK["faint"],
    "axes.labelcolor": _INK["ink"],
    "axes.linewidth": 1,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "grid.color": _INK["faint"],
    "grid.linewidth": 0.7,
    "text.color": _INK["ink"],
    "xtick.color": _INK["faint"],
    "xtick.labelcolor": _INK["ink"],
    "ytick.color": _INK["faint"],
    "ytick.labelcolor": _INK["ink"],
    "xtick.major.size": 4,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# Letters take the font of the page; matplotlib's own size is kept.
_FONT = re.compile(r"font-family:[^;]*;?")
_NAMES = {code: colour for colour, code in _INK.items()}
_INKS = re.compile("|".join(_NAMES))
_WORDS = ("title", "desc", "text", "tspan")
_Write = Callable[[float], str]


@dataclass
class Canvas:
    """Where one chart is drawn, once for each width; `tips` are words that show on hovering a mark."""

    axes: Axes
    narrow: bool
    tips: dict[str, str] = field(default_factory=dict)

    def tip(self, mark: Any, words: str) -> None:
        """Give a mark words of its own."""
        name = f"tip{len(self.tips)}"
        mark.set_gid(name)
        self.tips[name] = words


Draw = Callable[[Canvas], None]


def svg(name: str, title: str, description: str, draw: Draw, *, rows: int | None = None) -> str:
    """A chart for wide screens and the same for phones, one after the other; CSS shows one of them.

    `name` is unique in the page; `title` and `description` say to those who cannot see it what it shows.
    `rows` makes a chart of sideways bars as high as that many of them need.
    """
    return "\n".join(
        _one(f"{name}-{kind}", kind, (title, description), _sized(size, rows), draw)
        for kind, size in (("wide", WIDE), ("phone", PHONE))
    )


def _sized(size: tuple[int, int], rows: int | None) -> tuple[int, int]:
    return size if rows is None else (size[0], 50 + 34 * rows)


def _one(name: str, kind: str, words: tuple[str, str], size: tuple[int, int], draw: Draw) -> str:
    with _style():
        inches = (size[0] / _POINTS_PER_INCH, size[1] / _POINTS_PER_INCH)
        figure = Figure(figsize=inches, layout="constrained")
        canvas = Canvas(figure.add_subplot(), kind == "phone")
        draw(canvas)
        written = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _for_page(written.getvalue(), name, kind, words, canvas.tips)


@contextmanager
def _style() -> Iterator[None]:
    """Our settings alone, whatever the user's own file says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def _for_page(
    text: str, name: str, kind: str, words: tuple[str, str], tips: Mapping[str, str]
) -> str:
    """The drawing as an element of a page, under ids of its own."""
    drawing = ET.fromstring(text)  # noqa: S314 (matplotlib wrote it a moment ago, not a user)
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^")]+)', text))
    chart = ET.Element(
        "svg",
        {
            "class": f"chart {kind}",
            "viewBox": drawing.attrib["viewBox"],
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-desc",
        },
    )
    for tag, said in zip(("title", "desc"), words, strict=True):
        ET.SubElement(chart, tag, {"id": f"{name}-{tag}"}).text = said
    chart.extend(drawing)
    for part in chart.iter():
        part.tag, part.tail = part.tag.removeprefix(_SVG), None
        if part.tag not in _WORDS:
            part.text = None
        if part.tag not in ("title", "desc"):
            _adopt(part, name, used, tips)
    for part in list(chart.iter("defs")):
        # Its one rule would hold for the whole page.
        for sheet in part.findall("style"):
            part.remove(sheet)
    return ET.tostring(chart, encoding="unicode")


def _adopt(part: ET.Element, name: str, used: set[str], tips: Mapping[str, str]) -> None:
    """Give one element of a drawing the ids, colours and fonts of the page."""
    known = part.attrib.pop("id", "")
    if known in tips:
        title = ET.Element("title")
        title.text = tips[known]
        part.insert(0, title)
    elif known in used:
        part.set("id", f"{name}-{known}")
    if part.get("transform", "").startswith("rotate(-0 "):
        del part.attrib["transform"]
    if target := part.attrib.pop(_LINK, None):
        part.set("href", f"#{name}-{target[1:]}")
    if style := part.get("style"):
        part.set(
            "style", _INKS.sub(lambda found: f"var(--{_NAMES[found[0]]})", _FONT.sub("", style))
        )
    for key, value in part.attrib.items():
        part.set(key, " ".join(value.split()).replace("url(#", f"url(#{name}-"))


def lines(
    labels: Sequence[str],
    drawn: Mapping[str, Sequence[float | None]],
    write: _Write,
    *,
    dots: bool = False,
    from_zero: bool = True,
) -> Draw:
    """One line for each colour named, over places named by `labels`; `dots` marks the single values."""

    def draw(canvas: Canvas) -> None:
        axes, places = canvas.axes, range(len(labels))
        for number, (colour, values) in enumerate(drawn.items()):
            known = [float("nan") if value is None else value for value in values]
            dashes = (0, (5, 2)) if number else "solid"
            axes.plot(places, known, color=_INK[colour], linestyle=dashes)
            for place, value in enumerate(values) if dots or len(labels) == 1 else ():
                if value is None:
                    continue
                shape = "s" if number else "o"
                (mark,) = axes.plot(
                    [place], [value], shape, color=_INK[colour], markersize=6, clip_on=False
                )
                canvas.tip(mark, f"{labels[place]}, {colour}: {write(value)}")
        _named_places(canvas, labels)
        _measured(canvas, write, from_zero=from_zero)

    return draw


def paired_bars(labels: Sequence[str], drawn: Mapping[str, Sequence[float]], write: _Write) -> Draw:
    """Bars side by side at each place, one for each colour named."""

    def draw(canvas: Canvas) -> None:
        width = 0.8 / len(drawn)
        for number, (colour, values) in enumerate(drawn.items()):
            places = [place - 0.4 + width * (number + 0.5) for place in range(len(labels))]
            bars = canvas.axes.bar(places, values, width * 0.92, color=_INK[colour])
            for bar, label, value in zip(bars, labels, values, strict=True):
                canvas.tip(bar, f"{label}, {colour}: {write(value)}")
        _named_places(canvas, labels)
        _measured(canvas, write)

    return draw


def stacked_bars(
    labels: Sequence[str], drawn: Mapping[str, Sequence[float]], write: _Write
) -> Draw:
    """One bar at each place, made of one piece for each colour named, the first at the bottom."""

    def draw(canvas: Canvas) -> None:
        below = [0.0] * len(labels)
        for colour, values in drawn.items():
            bars = canvas.axes.bar(
                range(len(labels)),
                values,
                0.74,
                bottom=below,
                color=_INK[colour],
                edgecolor=_INK["paper"],
                linewidth=0.6,
            )
            for bar, label, value in zip(bars, labels, values, strict=True):
                canvas.tip(bar, f"{label}, {colour}: {write(value)}")
            below = [under + value for under, value in zip(below, values, strict=True)]
        _named_places(canvas, labels)
        _measured(canvas, write)

    return draw


def sideways_bars(
    labels: Sequence[str], drawn: Mapping[str, Sequence[float]], write: _Write
) -> Draw:
    """Bars from left to right with their values at the end, the first label on top."""

    def draw(canvas: Canvas) -> None:
        axes, height = canvas.axes, 0.78 / len(drawn)
        for number, (colour, values) in enumerate(drawn.items()):
            places = [place - 0.39 + height * (number + 0.5) for place in range(len(labels))]
            bars = axes.barh(places, values, height * 0.9, color=_INK[colour])
            axes.bar_label(bars, [write(value) for value in values], padding=5)
            for bar, label, value in zip(bars, labels, values, strict=True):
                canvas.tip(bar, f"{label}, {colour}: {write(value)}")
        most = max((value for values in drawn.values() for value in values), default=0)
        axes.set_xlim(0, most * (1.35 if canvas.narrow else 1.18) or 1)
        axes.set_yticks(range(len(labels)), [_broken(label, canvas.narrow) for label in labels])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return draw


def _broken(label: str, narrow: bool) -> str:
    """A label over two lines where one would leave no room for the bars."""
    most = 16 if narrow else 26
    if len(label) <= most:
        return label
    place = label.rfind(" ", 0, most + 1)
    place = place if place > 0 else most
    rest = label[place:].strip()
    return f"{label[:place]}\n{rest if len(rest) <= most else rest[: most - 1] + '…'}"


def _named_places(canvas: Canvas, labels: Sequence[str]) -> None:
    """As many names under the axis as fit."""
    step = -(-len(labels) // (4 if canvas.narrow else 7)) or 1
    places = range(0, len(labels), step)
    canvas.axes.set_xticks(places, [labels[place] for place in places])
    if len(labels) == 1:
        canvas.axes.set_xlim(-1, 1)


def _measured(canvas: Canvas, write: _Write, *, from_zero: bool = True) -> None:
    """A scale with few marks; one from zero counts things or minor units, which have no halves."""
    axes = canvas.axes
    axes.yaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3, integer=from_zero))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    if from_zero:
        axes.set_ylim(0, max(1, axes.get_ylim()[1]))
