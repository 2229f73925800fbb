"""Commands that carry out a study, or part of one."""

import json
from pathlib import Path
from typing import Any, Literal

from rlli_jax.cli.arguments import Config, Output, Overrides, Run
from rlli_jax.cli.carrying_out import carry_out, load
from rlli_jax.errors import InputError


def run(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Carry out a whole study of any kind, from the judge to the report.

    Its key kind tells which: selection (of providers), market, teaching, session, tuning,
    preferences, planner, environment (of your own), or a kind of your own; with a block sweep, at
    many settings.

    Example: rlli run configs/paper.yaml seeds=3 --output runs/quick

    Args:
        resume: Go on where an earlier run stopped; its results are those of a run never stopped.
        overwrite: Delete an earlier run in the same directory first.
    """
    carry_out("run", config, overrides, output, resume, overwrite)


def judge(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    export_batch: Path | None = None,
    import_batch: Path | None = None,
) -> None:
    """Only fill the table of QoE: ask the judge every question of a study.

    Answers of language models are kept in a store and never paid for twice, whatever stops this.

    Example: rlli judge configs/llava.yaml --dry-run

    Args:
        resume: Use the directory of an earlier run of the same study.
        overwrite: Delete an earlier run in the same directory first.
        dry_run: Only say how many questions there are, how many are answered, and what the rest
            may cost.
        export_batch: Only write the missing questions to this file, as lines for batch services.
        import_batch: Only take the answers of a batch service's file into the store.
    """
    if not (dry_run or export_batch or import_batch):
        carry_out(
            "judge", config, overrides, output, resume, overwrite, train=False, reported=False
        )
        return
    from rlli_jax.experiments.questions import export_missing, import_answers, plan_questions

    option = "dry-run" if dry_run else "export-batch" if export_batch else "import-batch"
    study = load(f"judge --{option}", config, overrides)
    if export_batch is not None:
        print(export_missing(study, export_batch))
    if import_batch is not None:
        print(import_answers(study, import_batch))
    if dry_run:
        print(plan_questions(study))


def examine(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
    tune: bool = False,
    wordings: bool = False,
) -> None:
    """Examine the judge of a study: does it see, keep to the scale, and answer as the persona?

    A few hundred questions, whose answers are stored like all others; rlli run asks them too,
    before the table. DIR gets examination.json; runs/<name of the study>-examination if not given.

    Example: rlli examine configs/smollm.yaml

    Args:
        tune: First find out how it is best asked (digits or words, a beginning of the answer, both
            label orders), and write that into CONFIG.
        wordings: Also compare how well the judge plays personas in each wording.
    """
    from rich.console import Console

    from rlli_jax.experiments import examination
    from rlli_jax.experiments.questions import human_of
    from rlli_jax.studies import directory_of

    study: Any = load("examine", config, overrides)
    if study.judge is None:
        raise InputError(f"{config} has no judge, so there is nobody to examine.")
    if tune:
        from rlli_jax.experiments import tuning

        best = tuning.tune(study, Console())
        print(tuning.write_settings(config, best.settings))
        study = load("examine", config, overrides)
    run = directory_of(study)
    path = output if output is not None else run.with_name(f"{run.name}-examination")
    examination.examine_study(
        study.population, study.catalog, study.judge, human_of(study),
        Console(), path, wordings=wordings,
    )  # fmt: skip
    print(f"examination: {path / examination.FILE}")


def train(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
) -> None:
    """Only train: go on with a run directory that `rlli judge` has filled.

    Example: rlli train configs/paper.yaml --output runs/table-only
    """
    carry_out("train", config, overrides, output, True, False, reported=False)


def report(run: Run, /) -> None:
    """Write report.html and the figures of a finished run or sweep anew.

    Example: rlli report runs/paper
    """
    from rlli_jax.studies import render

    print(f"report: {render(run)}")


def sweep(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
    resume: bool = False,
    overwrite: bool = False,
    engine: Literal["local", "ray"] = "local",
    track: Literal["tensorboard", "wandb"] | None = None,
) -> None:
    """Carry out a study at many settings: a grid, a list or a random draw over any key.

    Example: rlli sweep configs/sweep.yaml seeds=3

    Args:
        resume: Go on where an earlier sweep stopped; finished runs are not done again.
        overwrite: Delete an earlier sweep in the same directory first.
        engine: On this machine's devices, or as tasks on a Ray cluster (extra ray).
        track: Hand every run's settings, curve and results to this tracker (extra of its name).
    """
    carry_out("sweep", config, overrides, output, resume, overwrite, engine=engine, track=track)


def schema(kind: str = "selection") -> None:
    """Print the JSON schema of a study's file, by which editors complete and check YAML.

    Example: rlli schema > study.schema.json, then in the file, as its first line:
    # yaml-language-server: $schema=study.schema.json

    Args:
        kind: Of the study: selection, market, teaching, session, tuning, preferences, planner,
            environment, or package.module:name.
    """

    from rlli_jax.experiments.schema import schema as schema_of
    from rlli_jax.studies import study_kind

    print(json.dumps(schema_of(study_kind(kind, "--kind").part("config")), indent=2))


def teach(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Let a language model teach a student, and the student's advantage teach the model.

    Example: rlli teach configs/bidirectional.yaml

    Args:
        resume: Go on where an earlier run of the same study stopped.
        overwrite: Delete an earlier run in the same directory first.
    """
    carry_out("teach", config, overrides, output, resume, overwrite)
