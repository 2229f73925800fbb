"""Studies of every kind: read one from its file, carry it out in a run directory, report it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from rlli_jax.errors import InputError, why

if TYPE_CHECKING:
    from rich.console import Console

    from rlli_jax.experiments.sweeps.config import Sweep
    from rlli_jax.experiments.yaml_blocks import StudyBlock

    Study: TypeAlias = StudyBlock | Sweep

__all__ = ["STUDIES", "StudyKind", "load_study", "render", "run_study", "study_kind"]


class CarriesOut(Protocol):
    """What carries a study out; :class:`rlli_jax.experiments.study.TrainedStudy` is one."""

    def carry_out(self, config: Any, path: Path, console: Console, *, train: bool = True) -> None:
        """Fill an open run directory, or what is left of it. Raises InputError."""


class StudyKind(NamedTuple):
    """A kind of study; each part is the object itself, or its import path package.module:name."""

    config: Any
    """The block of the whole file, derived from
    :class:`rlli_jax.experiments.yaml_blocks.StudyBlock`."""
    study: Any
    """What carries it out, see :class:`CarriesOut`; sweeps take a ``TrainedStudy``."""
    render: Any
    """run directory -> the path of its ``report.html``."""
    words: str = "of a kind of its own"
    """A study ..."""

    def part(self, name: str) -> Any:
        """One of the parts, imported when it is asked for."""
        part = getattr(self, name)
        return imported(part) if isinstance(part, str) else part


STUDIES = {
    "selection": StudyKind(
        "rlli_jax.experiments.selection.config:StudyConfig",
        "rlli_jax.experiments.selection.study:STUDY",
        "rlli_jax.report.selection:render",
        "of provider selection",
    ),
    "market": StudyKind(
        "rlli_jax.experiments.market.config:MarketConfig",
        "rlli_jax.experiments.market.study:STUDY",
        "rlli_jax.report.market:render",
        "of the edge market",
    ),
    "teaching": StudyKind(
        "rlli_jax.experiments.teaching.config:TeachingStudy",
        "rlli_jax.experiments.teaching.study:STUDY",
        "rlli_jax.report.teaching:render",
        "of teaching",
    ),
    "session": StudyKind(
        "rlli_jax.experiments.session.config:SessionStudy",
        "rlli_jax.experiments.session.study:STUDY",
        "rlli_jax.report.session:render",
        "of sessions",
    ),
    "tuning": StudyKind(
        "rlli_jax.experiments.tuned.config:TuningStudy",
        "rlli_jax.experiments.tuned.study:STUDY",
        "rlli_jax.report.tuning:render",
        "of a language model tuned by reward",
    ),
    "preferences": StudyKind(
        "rlli_jax.experiments.preferences.config:PreferencesStudy",
        "rlli_jax.experiments.preferences.study:STUDY",
        "rlli_jax.report.preferences:render",
        "of preferences",
    ),
    "planner": StudyKind(
        "rlli_jax.experiments.planner.config:PlannerStudy",
        "rlli_jax.experiments.planner.study:STUDY",
        "rlli_jax.report.planner:render",
        "of planners",
    ),
    "environment": StudyKind(
        "rlli_jax.experiments.environment.config:EnvironmentStudy",
        "rlli_jax.experiments.environment.study:STUDY",
        "rlli_jax.report.environment:render",
        "of an environment of your own",
    ),
}


def imported(path: str) -> Any:
    """What stands at an import path package.module:name."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def study_kind(name: str, source: str = "kind") -> StudyKind:
    """A kind of :data:`STUDIES`, or the :class:`StudyKind` at an import path.

    Raises:
        InputError: there is none.
    """
    if name in STUDIES:
        return STUDIES[name]
    known = f"write one of {', '.join(STUDIES)}, or package.module:name of another"
    if ":" not in name:
        raise InputError(f"{source}: there is no kind of study {name!r}; {known}.")
    try:
        kind = imported(name)
    except Exception as error:  # a module may raise anything while it is imported
        raise InputError(
            f"{source}: {name!r} cannot be imported ({why(error)}); {known}."
        ) from None
    if not isinstance(kind, StudyKind):
        raise InputError(
            f"{source}: {name!r} is a {type(kind).__name__}; it must be a "
            "rlli_jax.studies.StudyKind."
        )
    return kind


def kind_of(content: Mapping[str, Any]) -> str:
    """Name of the kind of study that a file holds.

    Files without the key ``kind`` are told by the block that only their kind has.
    """
    if "kind" in content:
        return str(content["kind"])
    return "teaching" if "methods" in content else "market" if "market" in content else "selection"


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study from YAML; its key ``kind`` tells its kind. The file is read once.

    Args:
        path: of the file; paths in it are relative to its folder.
        overrides: such as ``("seeds=3", "policies.PPO.hyperparams.gamma=0.9")``.

    Returns:
        The config, a ``StudyConfig`` (provider selection), ``MarketConfig``, ``TeachingStudy``,
        ``EnvironmentStudy`` or one of another kind; or a ``Sweep`` over one.

    Raises:
        InputError: one sentence that names the file, the key's path and what to do.
    """
    from rlli_jax.experiments.yaml_blocks import folder_of, parse_as, read_yaml

    path = Path(path)
    content, folder = read_yaml(path, overrides), folder_of(path)
    kind = study_kind(kind_of(content), f"{path}: kind")
    if "sweep" in content:
        from rlli_jax.experiments.sweeps.config import parse_sweep

        return parse_sweep(content, str(path), folder, kind)
    return parse_as(kind.part("config"), content, source=str(path), folder=folder)


def kind_name(study: Study) -> str:
    """Name of the kind of a study, or of the study that a sweep varies."""
    varied: Any = getattr(study, "study", study)  # by a sweep
    return str(varied.kind)


def directory_of(study: Study) -> Path:
    """Where the run of a study goes if nobody says otherwise: ``runs/<its name>``."""
    varied: Any = getattr(study, "study", study)  # by a sweep
    return Path("runs") / varied.name


def carry_out(
    study: Study,
    path: Path,
    existing: Literal["refuse", "resume", "overwrite"],
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
    from rlli_jax.experiments.run_directory import open_run
    from rlli_jax.experiments.sweeps.config import Sweep

    kind = study_kind(kind_name(study))
    if isinstance(study, Sweep):
        from rlli_jax.experiments.sweeps.run import run_sweep

        run_sweep(study, path, existing, console, engine)
        return
    carries_out: CarriesOut = kind.part("study")
    with open_run(path, study, existing):
        carries_out.carry_out(study, path, console, train=train)


def render(run_dir: str | Path) -> Path:
    """Write figures and page of a run of any kind of study, or of a sweep; the path of the page.

    Knows no JAX, unless the study is of a kind of its own that does.

    Raises:
        InputError: the run directory is incomplete or damaged.
    """
    from rlli_jax.report.run import read_config
    from rlli_jax.run_files import read

    path = Path(run_dir)
    if (path / "sweep.yaml").exists():
        from rlli_jax.report import sweep

        return sweep.render(path)
    file = path / "config.yaml"
    content = read(file, read_config)[1] if file.exists() else {}
    page: Path = study_kind(kind_of(content), f"{file}: kind").part("render")(path)
    return page


def run_study(
    study: Study | str | Path,
    output: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Carry out a study of any kind, from the judge to the report, as ``rlli run`` does::

        run = run_study("configs/paper.yaml", "runs/quick", overrides=["seeds=3"])

    A sweep takes the devices that JAX has; on a CPU that is one, unless ``jax_num_cpu_devices``
    says otherwise.

    Args:
        study: a YAML file, or what :func:`load_study` made of it.
        output: the run directory; ``runs/<name of the study>`` if not given.
        overrides: of a file's keys, such as ``"seeds=3"``.
        resume: go on where an earlier run stopped; its results are those of a run never stopped.
        overwrite: delete an earlier run in the same directory first.
        progress: whether to show how far it is.

    Returns:
        The run directory, which holds ``report.html``.

    Raises:
        InputError: a mistake in the study; something that it asks for cannot be had; or the
            directory holds a run and neither ``resume`` nor ``overwrite`` is true.
    """
    from rich.console import Console

    if resume and overwrite:
        raise InputError("resume and overwrite contradict each other; give one of them.")
    if isinstance(study, str | Path):
        study = load_study(study, overrides)
    elif overrides:
        raise InputError("overrides are for a file; change the loaded study, or give its path.")
    path = directory_of(study) if output is None else Path(output)
    existing: Any = "overwrite" if overwrite else "resume" if resume else "refuse"
    carry_out(study, path, existing, Console(quiet=not progress))
    render(path)
    return path
