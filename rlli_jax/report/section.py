"""What a report is: a list of sections, each with its words, its figures and its template."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from rlli_jax.files import write_bytes, write_text
from rlli_jax.report.labels import number, percent
from rlli_jax.report.run import RunDirectory
from rlli_jax.report.style import COLUMN, STYLE, Drawing, SavedFigure, saved
from rlli_jax.run_files import read


def always(run: Any) -> bool:
    """Whether to show what every run has."""
    return True


def nothing(run: Any) -> dict[str, Any]:
    """The context of a template that needs the run alone."""
    return {}


def no_figures(run: Any) -> Iterable[Drawing]:
    """The figures of a section that has none."""
    return ()


@dataclass(frozen=True)
class Section:
    """One part of a report. Each function takes the run, as the report's ``load`` gives it."""

    name: str
    """Its template is ``templates/<name>.html``, which knows ``run``, ``figures`` (by their file
    names) and what ``context`` gives."""
    context: Callable[[Any], Mapping[str, Any]] = nothing
    """What the template says beside the run."""
    figures: Callable[[Any], Iterable[Drawing]] = no_figures
    """What it shows."""
    when: Callable[[Any], bool] = always
    """Whether the run has anything to say here."""


def of_file(
    name: str,
    file: str,
    view: Callable[[Path, Any], Any],
    figures: Callable[[Any], Iterable[Drawing]] = no_figures,
) -> Section:
    """A section that every run has whose directory has a file; its template knows
    ``view(file, run)`` by the section's name."""
    return Section(
        name,
        lambda run: {name: read(run.path / file, lambda path: view(path, run))},
        figures,
        lambda run: (run.path / file).exists(),
    )


def one(name: str, title: str, draw: Callable[[Any], Figure]) -> Callable[[Any], Iterable[Drawing]]:
    """The figures of a section that has one."""
    return lambda run: [(name, title, draw(run))]


def each(row: Callable[[Any, Any], Mapping[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """The context ``rows``: a line for each policy of the run, as ``row(run, policy)`` gives it."""
    return lambda run: {"rows": [row(run, policy) for policy in run.policies]}


Note = tuple[str, str]
"""What a reader must not miss: a sentence in bold, and the rest."""


class Header(NamedTuple):
    """What stands above the sections."""

    lines: Sequence[tuple[str, str]]
    """Each a word that is set apart (or none) and a sentence."""
    notes: Sequence[Note] = ()


@dataclass(frozen=True)
class Report:
    """The report of a kind of study."""

    kicker: str
    """The line above its title."""
    load: Callable[[Path], Any]
    """run directory -> run. Raises InputError where it is incomplete or damaged."""
    header: Callable[[Any], Header]
    sections: Sequence[Section]
    made: bool = True
    """Whether it ends by saying how the run was made."""

    def render(self, run_dir: str | Path) -> Path:
        """Write ``figures/*.svg``, ``figures/*.pdf`` and ``report.html`` into a run directory.

        Every file is written beside its place and then renamed, so that a reader never sees half
        of one. Returns the path of the page.

        Raises:
            InputError: the run directory is incomplete, damaged or cannot be written.
        """
        run: RunDirectory = self.load(Path(run_dir))
        page, figures = self.page(run)
        for figure in figures:
            write_text(run.path / "figures" / f"{figure.name}.svg", figure.svg)
            write_bytes(run.path / "figures" / f"{figure.name}.pdf", figure.pdf)
        report = run.path / "report.html"
        write_text(report, page)
        return report

    def page(self, run: Any) -> tuple[str, list[SavedFigure]]:
        """The page's text, and all its figures."""
        figures: list[SavedFigure] = []
        told = []
        for section in self.sections:
            if section.when(run):
                with matplotlib.rc_context(STYLE):
                    drawn = [saved(*drawing) for drawing in section.figures(run)]
                figures += drawn
                shown = {figure.name: _shown(figure) for figure in drawn}
                template = _templates().get_template(f"{section.name}.html")
                told.append(Markup(template.render(run=run, figures=shown, **section.context(run))))
        page = _templates().get_template("base.html")
        return page.render(report=self, run=run, header=self.header(run), sections=told), figures


def _shown(figure: SavedFigure) -> dict[str, Any]:
    """As the templates' macro ``figure`` takes it."""
    return {"svg": Markup(figure.inline()), "wide": figure.width > COLUMN}


@cache
def _templates() -> jinja2.Environment:
    """Where the templates are, and what they may call."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rlli_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "percent": percent, "breakable": _breakable}
    parts: Any = environment.get_template("parts.html").module
    for name in ("figure", "rating", "told", "known"):
        environment.globals[name] = getattr(parts, name)
    return environment


def _breakable(name: str) -> Markup:
    """A name that may be broken into lines after its underscores and slashes."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(name))))
