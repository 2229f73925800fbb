"""The report of a teaching study: the paper's Fig. 2, the controls, and a plain verdict.

Reads files only, like the rest of this room; what the files hold is told in
``rlli_jax/experiments/teaching/study.py``.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rlli_jax.report import style
from rlli_jax.report.labels import conjunction, number, plus_minus, quantity
from rlli_jax.report.section import Header, Report, Section, one
from rlli_jax.report.teaching_run import (
    TeachingRun,
    best_reading,
    case_words,
    gain,
    load_teaching_run,
    matched_controls,
)
from rlli_jax.statistics import Estimate, t_interval, within

EXAMPLES = 8
COLOURS = ("#5d6976", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5c2e")


def findings(run: TeachingRun) -> list[str]:
    """What the run shows, one sentence each, the main ones first."""
    return [
        *(_verdict(run, case) for case in run.cases),
        *(_others(run, case) for case in run.cases),
        *_successes(run),
        *_references(run),
    ]


def _words(estimate: Estimate) -> str:
    if not _judged(estimate):
        return f"{_short(estimate)} (no interval: too few seeds)"
    return _short(estimate).replace("(", "(95 % interval ")


def _short(estimate: Estimate) -> str:
    value, low, high = (number(float(x), 3) for x in estimate)
    return f"{value} ({low} to {high})" if _judged(estimate) else value


def _judged(estimate: Estimate) -> bool:
    """Whether there is an interval."""
    return bool(np.isfinite(estimate.low) and np.isfinite(estimate.high))


def _verdict(run: TeachingRun, case: str) -> str:
    """The reading that was to be tested, against its controls."""
    tested = run.config["tested"]
    silent, alone = (gain(run, case, tested, run.config[key]) for key in ("silent", "alone"))
    made_up = {fake: gain(run, case, tested, fake) for fake in matched_controls(run, case, tested)}
    if not _judged(silent):
        verdict = "too few seeds to tell whether feedback helps"
    elif silent.high < 0:
        verdict = "feedback does harm"
    elif silent.low <= 0:
        verdict = "no effect of feedback is shown"
    elif not made_up:
        verdict = (
            "training with feedback helps, but no control credits made-up feedback as this "
            "reading does, so whether it matters what the teacher hears is not told"
        )
    elif not all(gained.low > 0 for gained in made_up.values()):
        unbeaten = [fake for fake, gained in made_up.items() if not gained.low > 0]
        verdict = (
            "training with feedback helps, but it is not shown that it matters what the teacher "
            f"hears: {_quoted(unbeaten)} may do as well"
        )
    elif alone.low > 0:
        verdict = "feedback helps"
    else:
        verdict = "feedback helps the teacher, but it cannot be told that the student needs one"
    gains = {
        "the same teacher without feedback": silent,
        "the student alone": alone,
        **{f"“{fake}”": gained for fake, gained in made_up.items()},
    }
    return (
        f"Case {case} ({case_words(run, case)}): {verdict}. Read as “{tested}”, it gains, in mean "
        "exact return over the training, "
        + conjunction([f"{_words(gained)} over {what}" for what, gained in gains.items()])
        + "."
    )


def _others(run: TeachingRun, case: str) -> str:
    """What the other readings do, and which is best."""
    tested, silent = run.config["tested"], run.config["silent"]
    readings = [r.name for r in run.cases[case].values() if not r.control and r.name != tested]
    gains = {name: gain(run, case, name, silent) for name in readings}
    gains = {name: gained for name, gained in gains.items() if _judged(gained)}
    groups = {
        "helps when read as": [name for name, e in gains.items() if e.low > 0],
        "does harm when read as": [name for name, e in gains.items() if e.high < 0],
        "shows no effect when read as": [n for n, e in gains.items() if e.low <= 0 <= e.high],
    }
    said = [f"{what} {_quoted(names)}" for what, names in groups.items() if names]
    teacher = _words(gain(run, case, silent, run.config["alone"]))
    best = best_reading(run, case)
    return (
        f"Case {case}: a teacher that hears nothing gains {teacher} over the student alone. "
        + (f"Feedback {', '.join(said)}. " if said else "")
        + f"The reading that does best in this run is “{best}”: "
        + f"{_words(gain(run, case, best, silent))} over no feedback."
    )


def _quoted(names: list[str]) -> str:
    return conjunction([f"“{name}”" for name in names])


def _first(steps: np.ndarray, curve: np.ndarray, level: float) -> str | None:
    reached = np.flatnonzero(curve >= level)
    return f"{int(steps[reached[0]]):,}" if len(reached) else None


def _successes(run: TeachingRun) -> list[str]:
    """When a success of 0.99 is reached, exactly computed."""
    if run.task.metric != "success":
        return []
    sentences = []
    case = max(run.cases, key=lambda c: run.config["cases"][c]["iterations"])
    each = int(run.task.env_steps_per_iteration[case])
    for name in (run.config["alone"], run.config["silent"], run.config["tested"]):
        arrays = run.cases[case][name].arrays
        curve = arrays["success"].mean(0)
        steps = _first(each * arrays["iterations"], curve, 0.99)
        end = f"{number(float(curve[-1]), 4)} at the end"
        reached = f"reaches 0.99 after {steps} environment steps" if steps else "stays below 0.99"
        sentences.append(f"Exact success, mean over seeds, of {name}: {reached}, {end}.")
    if run.language_policy is not None:
        policy = run.language_policy
        curve = policy["success"].mean(0)
        steps = _first(policy["env_steps"], curve, 0.99)
        reached = f"reaches 0.99 after {steps} environment steps" if steps else "stays below 0.99"
        sentences.append(
            f"The language model itself as the policy, trained by PPO: exact success {reached}, "
            f"best {number(float(curve.max()), 4)}, {number(float(curve[-1]), 4)} at the end."
        )
    return sentences


def _references(run: TeachingRun) -> list[str]:
    """What needs no learning, so that nobody takes it for knowledge."""
    metric = run.task.metric
    told = [
        f"{name} is right in {100 * worth['accuracy']:.1f} % of the texts (exact {metric} "
        f"{number(worth[metric], 3)})"
        for name, worth in run.task.references.items()
    ]
    return [f"Without any learning, {conjunction(told)}."] if told else []


def _rows(run: TeachingRun, case: str) -> list[dict[str, str]]:
    """One line of the table for each method, best area first."""
    rows = []
    results = run.cases[case]
    for result in sorted(results.values(), key=lambda r: -float(r.area.mean())):
        a = result.arrays
        taught = "teacher_accuracy_before" in a

        def change(name: str, a: dict[str, np.ndarray] = a, taught: bool = taught) -> str:
            if not taught:
                return "–"
            before, after = (
                float(a[f"teacher_{name}_{when}"].mean()) for when in ("before", "after")
            )
            return f"{number(before, 2)} → {number(after, 2)}"

        metric = run.task.metric
        last = a["followed"][:, -max(1, a["followed"].shape[1] // 10) :]
        difference = gain(run, case, result.name, run.config["silent"])
        rows.append(
            {
                "name": result.name,
                "area": plus_minus(t_interval(result.area), 3),
                "gain": "–" if result.name == run.config["silent"] else _short(difference),
                "end": number(float(a[metric][:, -1].mean()), 3),
                "accuracy": change("accuracy"),
                "obeyed": change(metric),
                "followed": "–" if not taught else f"{100 * float(last.mean()):.0f} %",
                "positive": "–" if not taught else f"{100 * float(a['positive'].mean()):.0f} %",
            }
        )
    for name, worth in run.task.references.items():
        told = {
            "accuracy": number(worth["accuracy"], 2),
            "obeyed": number(worth[run.task.metric], 2),
        }
        nothing = dict.fromkeys(("area", "gain", "end", "followed", "positive"), "–")
        rows.append({"name": name} | nothing | told)
    return rows


def _examples(run: TeachingRun) -> dict[str, Any]:
    """What the teacher of the first seed says about the texts that it met most often."""
    case = max(run.cases, key=lambda c: run.config["cases"][c]["iterations"])
    name = run.config["tested"]
    arrays = run.cases[case][name].arrays
    heard = arrays["heard"][0]
    advice = run.task.advice
    rows = []
    for text in np.argsort(-heard.sum(1))[:EXAMPLES]:
        said = {}
        for when in ("before", "after"):
            table = arrays[f"teacher_advice_{when}"][0, text]
            said[when] = f"{advice[int(table.argmax())]} ({100 * float(table.max()):.0f} %)"
        worse, better = heard[text]
        rows.append(
            {
                "text": run.task.texts[text],
                "expert": advice[run.task.expert[text]],
                "better": f"{100 * better / (worse + better):.0f} % of {worse + better:,}",
                **said,
            }
        )
    return {"examples": {"case": case, "method": name, "rows": rows}}


def _shown(run: TeachingRun, case: str) -> list[str]:
    """The methods of Fig. 2: controls, the paper's reading, the one tested and the best one."""
    results = run.cases[case]
    paper = [
        r.name for r in results.values() if not r.control and r.method["comparison"] == "previous"
        and r.method["feedback"] == "policy_gradient" and r.method["signal"] == "sign"
    ]  # fmt: skip
    controls = [r.name for r in results.values() if r.control]
    tested = run.config["tested"]
    return list(dict.fromkeys([*controls, *paper[:1], tested, best_reading(run, case)]))


def _figure_2(run: TeachingRun) -> Iterator[style.Drawing]:
    metrics = {"return": "Exact mean return"}
    if run.task.metric == "success":
        metrics["success"] = "Exact success"
    for metric, label in metrics.items():
        title = f"{label} while training, as in the paper's Fig. 2"
        yield f"fig2-{metric}", title, _curves(run, metric, label)


def _looks(run: TeachingRun) -> dict[str, tuple[str, Any]]:
    names = list(dict.fromkeys(name for case in run.cases for name in _shown(run, case)))
    return {
        name: (COLOURS[i % len(COLOURS)], style.DASHES[i % len(style.DASHES)])
        for i, name in enumerate(names)
    }


def _curves(run: TeachingRun, metric: str, label: str) -> Figure:
    looks = _looks(run)
    figure = Figure((style.PAGE, 2.9))
    panels = figure.subplots(1, len(run.cases), squeeze=False)[0]
    drawn: dict[str, Any] = {}
    for axes, case in zip(panels, run.cases, strict=True):
        for name in _shown(run, case):
            arrays = run.cases[case][name].arrays
            limits = (0, 1) if metric == "success" else (-np.inf, np.inf)
            mean, low, high = within(t_interval(arrays[metric]), *limits)
            colour, dash = looks[name]
            x = arrays["iterations"]
            drawn[name] = axes.plot(x, mean, color=colour, linestyle=dash)[0]
            axes.fill_between(x, low, high, color=colour, alpha=0.09, linewidth=0)
        expert = run.task.expert_value.get(metric)
        if expert is not None:
            drawn["the expert"] = axes.axhline(expert, color=style.INK, linewidth=0.8)
        axes.set_title(f"({case}) {case_words(run, case)}")
        axes.set_xlabel("Iterations")
        axes.margins(x=0)
    panels[0].set_ylabel(label)
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside upper left",
        ncols=style.legend_columns(list(drawn), style.PAGE), handlelength=2.4,
    )  # fmt: skip
    return figure


def _gains(run: TeachingRun) -> Figure:
    """Every method against the same teacher without feedback, paired by seed."""
    silent = run.config["silent"]
    skipped = (silent, run.config["alone"])
    names = [name for name in run.config["methods"] if name not in skipped]
    figure = Figure((style.PAGE, 0.7 + 0.21 * len(names)))
    panels = figure.subplots(1, len(run.cases), squeeze=False, sharey=True)[0]
    for axes, case in zip(panels, run.cases, strict=True):
        for y, name in enumerate(names):
            value, low, high = (float(x) for x in gain(run, case, name, silent))
            colour = style.MUTED if run.cases[case][name].control else style.BLUE
            axes.hlines(y, low, high, color=colour, linewidth=1.6)
            axes.plot(value, y, "o", color=colour, markersize=4)
        axes.axvline(0, color=style.INK, linewidth=0.8)
        axes.set_title(f"({case}) {case_words(run, case)}")
        axes.set_xlabel(f"Gain in mean return over “{silent}”")
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(names)), names)
    return figure


def _followed(run: TeachingRun) -> Figure:
    looks = _looks(run)
    figure = Figure((style.PAGE, 2.3))
    panels = figure.subplots(1, len(run.cases), squeeze=False, sharey=True)[0]
    for axes, case in zip(panels, run.cases, strict=True):
        for name in _shown(run, case):
            result = run.cases[case][name]
            if not result.method["teacher"]:
                continue
            mean = t_interval(result.arrays["followed"]).value
            colour, dash = looks[name]
            axes.plot(result.arrays["iterations"], mean, color=colour, linestyle=dash)
        axes.set_title(f"({case}) {case_words(run, case)}")
        axes.set_xlabel("Iterations")
        axes.margins(x=0)
        axes.set_ylim(0, 1)
    panels[0].set_ylabel("Share of steps")
    return figure


def _policy(run: TeachingRun) -> Figure:
    assert run.language_policy is not None
    metric = run.task.metric
    figure = Figure((style.COLUMN, 2.3))
    axes = figure.subplots()
    x = run.language_policy["env_steps"]
    for curve in run.language_policy[metric]:
        axes.plot(x, curve, color=style.BLUE)
    if metric == "success":
        axes.axhline(0.99, color=style.INK, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.margins(x=0)
    axes.set_xlabel("Environment steps")
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.set_ylabel(f"Exact {metric}")
    return figure


STAND_IN = (
    "The teacher is a tiny stand-in.",
    "It is a real language model (a T5 with its own words and a few thousand weights), but all "
    "that it knows is the expert's advice for a random part of the texts; each seed has its own. "
    "The numbers show how the methods behave with a teacher that knows part of the task, not what "
    "flan-t5-small or a larger model would do.",
)


def _header(run: TeachingRun) -> Header:
    task, config = run.task, run.config
    summary = (
        f"{task.name}: {len(task.texts)} texts, {len(task.advice)} pieces of advice; "
        f"{len(config['methods'])} methods, {config['seeds']} seeds each."
    )
    return Header([("", summary), ("Teacher", task.teacher)], [STAND_IN] * task.stand_in)


def _tables(run: TeachingRun) -> dict[str, Any]:
    return {
        "rows": {case: _rows(run, case) for case in run.cases},
        "captions": {case: case_words(run, case) for case in run.cases},
    }


REPORT = Report(
    kicker="rlli_jax report: teaching",
    load=load_teaching_run,
    header=_header,
    sections=(
        Section("teaching/finding", lambda run: {"findings": findings(run)}),
        Section("teaching/figure_2", figures=_figure_2),
        Section(
            "teaching/gains",
            _tables,
            one("gains", "Difference in area under the learning curve", _gains),
        ),
        Section(
            "teaching/followed",
            figures=one("followed", "How often the student does what it is advised", _followed),
        ),
        Section("teaching/examples", _examples),
        Section(
            "teaching/language_policy",
            figures=one("language-policy", "The language model as the policy", _policy),
            when=lambda run: run.language_policy is not None,
        ),
    ),
)
render = REPORT.render
