"""Studies of every kind: read one from its file, carry it out in a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rich.console import Console

from rlli_jax.experiments.market.config import MarketConfig, parse_study
from rlli_jax.experiments.run_directory import Existing, open_run
from rlli_jax.experiments.selection.config import StudyConfig
from rlli_jax.experiments.yaml_blocks import read_yaml

if TYPE_CHECKING:  # each kind is imported when a study is of it
    from rlli_jax.experiments.sweeps.config import Sweep
    from rlli_jax.experiments.teaching.config import TeachingStudy

    Study: TypeAlias = StudyConfig | MarketConfig | TeachingStudy | Sweep


def kind_of(content: Mapping[str, Any]) -> Literal["selection", "market", "teaching", "sweep"]:
    """Which kind of study a file holds, by the block that only that kind has."""
    if "sweep" in content:
        return "sweep"
    return "teaching" if "methods" in content else "market" if "market" in content else "selection"


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study from YAML; what the file holds tells its kind.

    Args:
        path: of the file; paths in it are relative to its folder.
        overrides: such as ``("seeds=3", "policies.PPO.hyperparams.gamma=0.9")``.

    Returns:
        A ``StudyConfig`` (provider selection), ``MarketConfig``, ``TeachingStudy`` or ``Sweep``.

    Raises:
        InputError: one sentence that names the file, the key's path and what to do.
    """
    path = Path(path)
    content = read_yaml(path, overrides)
    kind = kind_of(content)
    if kind == "sweep":
        from rlli_jax.experiments.sweeps.config import parse_sweep

        return parse_sweep(content, path)
    if kind == "teaching":
        from rlli_jax.experiments.teaching import config

        return config.parse_study(content, source=str(path), folder=path.resolve().parent)
    return parse_study(content, source=str(path), folder=path.resolve().parent)


def directory_of(study: Study) -> Path:
    """Where the run of a study goes if nobody says otherwise: ``runs/<its name>``."""
    varied: Any = getattr(study, "study", study)  # by a sweep
    return Path("runs") / varied.name


def carry_out(
    study: Study,
    path: Path,
    existing: Existing,
    console: Console,
    *,
    train: bool = True,
    engine: Literal["local", "ray"] = "local",
) -> None:
    """Ask the judge, train and evaluate: all of a study but its report.

    Args:
        path: of the run directory.
        existing: what to do with an earlier run there.
        console: shows how far it is.
        train: False stops where the table of QoE is filled; for provider selection and the market.
        engine: where a sweep runs: on this machine's devices, or as tasks on a Ray cluster.

    Raises:
        InputError: whatever the study asks for cannot be had; what is finished is kept.
    """
    if isinstance(study, StudyConfig):
        from rlli_jax.experiments.selection import judging

        with open_run(path, study, existing):
            problem = judging.judge(study, path, console)
            if train:
                from rlli_jax.experiments.selection import study as studies

                studies.train_all(study, path, problem, console)
                studies.human_opinion(study, path, problem)
    elif isinstance(study, MarketConfig):
        from rlli_jax.experiments.market import study as market_studies

        with open_run(path, study, existing):
            market = market_studies.prepare(study, path, console)
            if train:
                market_studies.train_all(study, path, market, console)
    else:
        from rlli_jax.experiments.sweeps.config import Sweep

        if isinstance(study, Sweep):
            from rlli_jax.experiments.sweeps.run import run_sweep

            run_sweep(study, path, existing, console, engine)
            return
        from rlli_jax.experiments.teaching import study as teaching_studies
        from rlli_jax.experiments.teaching.config import read_study

        with open_run(path, study, existing, read_study):
            teaching_studies.carry_out(study, path, console)
