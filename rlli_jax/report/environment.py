"""The report of a study of an environment of one's own: what each policy returns."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

from rlli_jax.errors import InputError
from rlli_jax.report.data import read, read_config, read_versions
from rlli_jax.report.labels import digits_for, duration, plus_minus, quantity
from rlli_jax.report.market import interval_words
from rlli_jax.report.market_figures import convergence, returns_figure
from rlli_jax.report.page import again, on_page, templates, write_report
from rlli_jax.report.style import STYLE, plate
from rlli_jax.run_files import Array, Curve, Evaluation, Summary
from rlli_jax.statistics import Estimate, t_interval


class EnvironmentPolicy(Summary):
    """One policy, and the returns of its evaluation."""

    episodes: np.ndarray
    """Returns, [seeds, episodes]; each seed plays its own."""
    curve: Curve | None

    @property
    def returns(self) -> Array:
        """Mean over episodes, [seeds]."""
        return self.episodes.mean(1)

    def mean(self, key: str = "returns") -> Estimate:
        """The mean return, with its interval over seeds."""
        return t_interval(self.returns)


@dataclass(frozen=True)
class EnvironmentRun:
    """All that a run directory holds for the report."""

    path: Path
    config: str
    make: str
    description: str
    versions: dict[str, str]
    policies: tuple[EnvironmentPolicy, ...]  # in the order of the config
    optimum: None = None

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    @property
    def interval(self) -> str:
        """What the intervals are over, for a caption."""
        return interval_words(len(self.policies[0].returns))


def render_environment(run_dir: str | Path) -> Path:
    """Write ``figures/*`` and ``report.html`` into a run directory; the path of the page.

    Raises:
        InputError: the run directory is incomplete or damaged.
    """
    run = _load(Path(run_dir))
    with matplotlib.rc_context(STYLE):
        plates = [plate("returns", "Return of each policy", returns_figure(run))]
        if any(policy.curve is not None for policy in run.policies):
            plates.append(plate("convergence", "Return while training", convergence(run)))
    digits = digits_for(max(float(np.abs(policy.returns).max()) for policy in run.policies))
    best = max(run.policies, key=lambda policy: float(policy.returns.mean()))
    episodes = best.episodes.shape[1]
    page = (
        templates()
        .get_template("environment.html")
        .render(
            run=run,
            summary=f"{run.make}; {best.seeds} seed{'' if best.seeds == 1 else 's'}, each judged "
            f"on {episodes} episode{'' if episodes == 1 else 's'}.",
            lead=f"{best.name} returns most: {plus_minus(best.mean(), digits)}.",
            rows=[_row(policy, digits) for policy in run.policies],
            figures=on_page(plates),
            command=again(run.path),
        )
    )
    return write_report(run.path, plates, page)


def _load(path: Path) -> EnvironmentRun:
    text, config = read(path / "config.yaml", read_config)
    policies = []
    for name in config.get("policies", ()):
        folder = path / "policies" / name
        if not folder.is_dir():
            continue
        curve = folder / "curve.npz"
        policies.append(
            EnvironmentPolicy(
                **Summary.read(folder / "summary.json").model_dump(),
                episodes=Evaluation.read(folder / "evaluation.npz").returns,
                curve=Curve.read(curve) if curve.exists() else None,
            )
        )
    if not policies:
        raise InputError(f"{path / 'policies'} holds no policy: finish the run with `rlli run`.")
    return EnvironmentRun(
        path=path,
        config=text,
        make=str(config["environment"]["make"]),
        description=str(config.get("description", "")),
        versions=read(path / "versions.json", read_versions),
        policies=tuple(policies),
    )


def _row(policy: EnvironmentPolicy, digits: int) -> dict[str, str]:
    return {
        "name": policy.name,
        "learner": policy.learner,
        "returns": plus_minus(policy.mean(), digits),
        "steps": quantity(policy.env_steps) if policy.env_steps else "–",
        "time": duration(policy.train_seconds),
        "speed": quantity(policy.steps_per_second) if policy.steps_per_second else "–",
    }
