"""The page of `rlli evaluate`: what a log of people says, from the JSON file that it wrote."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from rlli_jax.files import write_text
from rlli_jax.report.page import on_page, templates
from rlli_jax.report.style import BLUE, COLUMN, INK, LIGHT_GREY, MUTED, PAGE, STYLE, Plate, plate
from rlli_jax.run_files import read, read_json

LONGEST = 34  # characters of a name in a figure


def render_findings(findings: str | Path, title: str) -> Path:
    """Write the page of a file of findings beside it, with the ending ``.html``; its path.

    InputError where the file is missing or damaged, or the page cannot be written.
    """
    path = Path(findings)
    page = read(path, lambda file: _page(read_json(file), title))
    target = path.with_suffix(".html")
    write_text(target, page)
    return target


def _page(found: dict[str, Any], title: str) -> str:
    low, high = map(float, found["scale"])

    def own(value: float | None, digits: int = 3) -> str:
        """A QoE from 0 to 1 on the scale of the log."""
        return "–" if value is None else f"{low + (high - low) * value:.{digits}f}"

    def gain(value: float) -> str:
        return f"{(high - low) * value:+.3f}"

    policies = sorted(found["policies"], key=lambda policy: -policy["best"]["value"])
    with matplotlib.rc_context(STYLE):
        plates = [_forest(found, policies)]
        if found["judge"] is not None and len(found["judge"]["curve"]) > 1:
            plates.append(_curve(found))
    environment = templates()
    environment.filters |= {"own": own, "gain": gain}
    return environment.get_template("people.html").render(
        name=title,
        kicker="rlli_jax: what people say",
        description="",
        found=found,
        policies=policies,
        low=low,
        high=high,
        scale=f"{low:g} to {high:g}",
        figures=on_page(plates),
        share=Markup("95&nbsp;%"),
    )


def _forest(found: dict[str, Any], policies: list[dict[str, Any]]) -> Plate:
    low, high = map(float, found["scale"])
    figure = Figure((PAGE, 0.7 + 0.24 * len(policies)))
    axes = figure.subplots()
    logged = low + (high - low) * found["logging_policy"]
    axes.axvline(logged, color=MUTED, linewidth=0.8, linestyle="dashed")
    axes.text(
        logged, -0.75, " as logged", color=MUTED, fontsize=7, ha="left", va="center", clip_on=False
    )
    for row, policy in enumerate(policies):
        value, start, end = (
            low + (high - low) * policy["best"][key] for key in ("value", "low", "high")
        )
        told = not policy["warning"]
        colour = BLUE if policy["name"] in found["of_run"] else INK
        axes.plot([start, end], [row, row], color=colour if told else LIGHT_GREY, linewidth=1.6)
        axes.plot(
            value, row, "s" if told else "o", color=colour, markersize=4.5,
            markerfacecolor=colour if told else "white",
        )  # fmt: skip
    axes.set_yticks(range(len(policies)), [_short(policy["name"]) for policy in policies])
    axes.set_ylim(len(policies) - 0.4, -1.1)
    axes.set_xlabel(f"QoE, {low:g} to {high:g}")
    axes.grid(axis="y", visible=False)
    return plate("forest", "What each policy would have been worth to these people", figure)


def _curve(found: dict[str, Any]) -> Plate:
    low, high = map(float, found["scale"])
    figure = Figure((COLUMN, 2.4))
    axes = figure.subplots()
    curve = found["judge"]["curve"]
    people = np.array([point["people"] for point in curve])
    for key, label, colour, dash in (
        ("with_judge", "with the judge", BLUE, "solid"),
        ("without", "people alone", INK, "dashed"),
    ):
        value, start, end = (
            low + (high - low) * np.array([point[key][part] for point in curve])
            for part in ("value", "low", "high")
        )
        axes.plot(people, value, color=colour, linestyle=dash, label=label, marker=".")
        axes.fill_between(people, start, end, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xticks(people, [str(x) for x in people])
    axes.set_xlabel("people whose ratings are used")
    axes.set_ylabel("QoE of the choices for others")
    axes.legend()
    return plate("bought", "What ratings of so many people buy", figure)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
