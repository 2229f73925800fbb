"""The ``rlli`` command. Imports what a command needs only when it runs: ``--help`` is instant."""

import codecs
import inspect
import os
import shlex
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rlli_jax.errors import InputError

if TYPE_CHECKING:
    from rlli_jax.experiments.feedback import Findings
    from rlli_jax.studies import Study

app = tyro.extras.SubcommandApp()

Overrides = Annotated[
    tyro.conf.Positional[tuple[str, ...]],
    tyro.conf.arg(
        metavar="KEY.PATH=VALUE",
        help="Change any key of the config, e.g. seeds=3 policies.PPO.hyperparams.gamma=0.9",
    ),
]
Config = Annotated[
    tyro.conf.Positional[Path], tyro.conf.arg(metavar="CONFIG", help="A study, as YAML.")
]
Output = Annotated[
    Path | None,
    tyro.conf.arg(help="Run directory; runs/<name of the study> if not given.", metavar="DIR"),
]
Run = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN", help="A run directory.")]


@app.command
def run(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Carry out a whole study of any kind, from the judge to the report.

    Its key kind tells which: provider selection, the edge market, teaching, an environment of your
    own, or a kind of your own; with a block sweep, at many settings.

    Example: rlli run configs/paper.yaml seeds=3 --output runs/quick

    Args:
        resume: Go on where an earlier run stopped; its results are those of a run never stopped.
        overwrite: Delete an earlier run in the same directory first.
    """
    _study("run", config, overrides, output, resume, overwrite)


@app.command
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
        _study("judge", config, overrides, output, resume, overwrite, train=False, reported=False)
        return
    from rlli_jax.experiments.selection.config import StudyConfig
    from rlli_jax.experiments.selection.questions import (
        export_missing,
        import_answers,
        plan_questions,
    )

    study = _load("judge", config, overrides)
    if not isinstance(study, StudyConfig):
        raise InputError(
            f"{config} is a study of the edge market, whose questions cannot be planned or sent as "
            "a batch: leave out --dry-run, --export-batch and --import-batch."
        )
    if export_batch is not None:
        print(export_missing(study, export_batch))
    if import_batch is not None:
        print(import_answers(study, import_batch))
    if dry_run:
        print(plan_questions(study))


@app.command
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
    from rlli_jax.studies import directory_of

    study: Any = _load("examine", config, overrides)
    if study.judge is None:
        raise InputError(f"{config} has no judge, so there is nobody to examine.")
    if tune:
        from rlli_jax.experiments import tuning

        best = tuning.tune(study, Console())
        print(tuning.write_settings(config, best.settings))
        study = _load("examine", config, overrides)
    run = directory_of(study)
    path = output if output is not None else run.with_name(f"{run.name}-examination")
    examination.examine_study(
        study.population, study.catalog, study.judge, getattr(study.evaluation, "human", None),
        Console(), path, wordings=wordings,
    )  # fmt: skip
    print(f"examination: {path / examination.FILE}")


@app.command
def train(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Output = None,
) -> None:
    """Only train: go on with a run directory that `rlli judge` has filled.

    Example: rlli train configs/paper.yaml --output runs/table-only
    """
    _study("train", config, overrides, output, True, False, reported=False)


@app.command
def report(run: Run, /) -> None:
    """Write report.html and the figures of a finished run or sweep anew.

    Example: rlli report runs/paper
    """
    from rlli_jax.studies import render

    print(f"report: {render(run)}")


@app.command
def personas(
    size: int = 5,
    group: str = "women 21-40",
    seed: int = 0,
    csv: Path | None = None,
    prompts: bool = False,
    save: Path | None = None,
) -> None:
    """Show users: drawn from published norms, or read from a CSV; and the text that a judge gets.

    Example: rlli personas --size 3 --group "men under 21" --prompts

    Args:
        size: How many users to draw.
        group: Sex and age group of the norms.
        seed: Of the draw.
        csv: Read the users from a CSV (name,O,C,E,A,N) instead.
        prompts: Also print the text for language models.
        save: Write the users to a CSV.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rlli_jax.judges import named_scale
    from rlli_jax.personas import TRAIT_NAMES, Population
    from rlli_jax.personas.prompts import general_setup, persona_text

    people = Population.from_csv(csv) if csv else Population.sample(size, group=group, seed=seed)
    table = Table("user", *TRAIT_NAMES)
    for persona in people.personas:
        table.add_row(escape(persona.name), *(f"{trait:.2f}" for trait in persona.known_traits))
    console = Console()
    console.print(table)
    if prompts:
        console.rule("general set-up")
        console.print(general_setup(named_scale("adjectives")), highlight=False, markup=False)
        for persona in people.personas:
            console.rule(escape(persona.name))
            console.print(persona_text(persona), highlight=False, markup=False)
    if save is not None:
        people.to_csv(save)


@app.command
def table(path: Annotated[Run, tyro.conf.arg(help="A run directory or a table.npz.")], /) -> None:
    """Show a table of QoE: each user's mean by provider, and the reference values.

    Example: rlli table runs/paper
    """
    import numpy as np
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rlli_jax.qoe import QoETable

    qoe = QoETable.load(path / "table.npz" if path.is_dir() else path)
    console = Console()
    console.print(f"judge: {qoe.judge}", highlight=False, markup=False, soft_wrap=True)
    cells = np.char.mod("%.3f", qoe.provider_values).astype(object)  # [users, providers]
    best = (np.arange(len(cells)), qoe.provider_values.argmax(1))
    cells[best] = [f"[bold]{cell}[/bold]" for cell in cells[best]]
    # The longer axis goes down. Names may hold what rich takes for markup.
    users, providers = map(escape, qoe.users), map(escape, qoe.providers)
    down, across, cells = (
        (users, providers, cells)
        if len(qoe.users) >= len(qoe.providers)
        else (providers, users, cells.T)
    )
    rows = Table("", *across, title="mean QoE over requests, each user's best in bold")
    for name, values in zip(down, cells, strict=True):
        rows.add_row(name, *values)
    console.print(rows)
    references = qoe.references()
    name, value = references["best_single"]
    console.print(
        f"{len(qoe.users)} users x {len(qoe.requests)} requests x {len(qoe.providers)} providers x "
        f"{qoe.qoe.shape[-1]} samples, {int((~qoe.legal).sum())} holes\n"
        f"sum over users of QoE: optimum {references['optimum']:.3f}, "
        f"optimum for each request {references['optimum_per_request']:.3f}, "
        f"best single provider ({name}) {value:.3f}, random {references['random']:.3f}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command
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
    _study("sweep", config, overrides, output, resume, overwrite, engine=engine, track=track)


@app.command
def select(
    run: Run,
    /,
    persona: str | None = None,
    ratings: Path | None = None,
    policy: str | None = None,
    export: Path | None = None,
) -> None:
    """Name the provider for a persona or for somebody who rated a few pictures.

    A trained policy chooses by the persona. By ratings, with or without a persona, the run's model
    of QoE does. Either way the model says what the user will think of each provider.

    Example: rlli select runs/paper --persona 4.2,3.1,2.5,3.9,2.0

    Args:
        persona: Openness, conscientiousness, extraversion, agreeableness, neuroticism, each 1 to 5.
        ratings: A table with the columns request, provider and rating of one user.
        policy: Name of the policy; the best one that knows the persona if not given.
        export: Also write the policy to this file, which serves without this package.
    """
    from rlli_jax.experiments import serving

    if persona is None and ratings is None:
        raise InputError("rlli select: give --persona, --ratings or both.")
    traits = None
    if persona is not None:
        try:
            traits = tuple(float(trait) for trait in persona.split(","))
        except ValueError:
            raise InputError(
                f"--persona {persona}: give five numbers, such as 4,3,2,4,2."
            ) from None
    if ratings is not None:
        chosen = serving.select_by_ratings(run, ratings, traits)
    else:
        assert traits is not None  # one of the two is given
        chosen = serving.select(run, traits, policy)
    print(f"{chosen.provider}: predicted QoE {chosen.qoe}; chosen by {chosen.policy}")
    for provider, qoe in sorted(chosen.predictions.items(), key=lambda item: -item[1].mean):
        print(f"  {provider:20} {qoe}")
    if export is not None:
        print(f"policy: {serving.export_policy(serving.load_policy(run, policy), export)}")


@app.command
def evaluate(
    run: Annotated[
        tyro.conf.Positional[Path | None],
        tyro.conf.arg(metavar="RUN", help="A run whose policies are valued too."),
    ] = None,
    /,
    *,
    log: str,
    qoe: str = "qoe",
    scale: str | None = None,
    trait_scale: str = "1-5",
    propensities: Literal["column", "shares", "estimate"] | None = None,
    output: Path | None = None,
) -> None:
    """Say by a log of people what policies would be worth, and whether personalising pays.

    Example: rlli evaluate runs/paper --log served.csv --qoe rating --propensities shares

    Args:
        log: A table with a row a decision: provider, QoE, and what is known of user, request,
            propensity and what else was offered; or the address of the log of `rlli serve`.
        qoe: The column of the QoE.
        scale: Of the QoE, such as 1-7; 1-5 if not given, or what the service was started with.
        trait_scale: Of the columns O, C, E, A, N, such as 1-7, or T.
        propensities: Where probabilities of choices come from: a column, the providers' shares (if
            chance alone chose), or an estimate from the traits.
        output: Also write everything to this JSON file, and a page beside it.
    """
    from rlli_jax.experiments import feedback
    from rlli_jax.report.people import render_findings
    from rlli_jax.run_files import write_json

    _cache_compilations()
    read = feedback.read_log(
        log, qoe=qoe, scale=scale, trait_scale=trait_scale, propensities=propensities
    )
    findings = feedback.evaluate(read, run)
    _show_findings(findings)
    if output is not None:
        write_json(output, findings.summary())
        print(f"findings: {output}")
        print(f"page: {render_findings(output, f'{Path(log).name}, {qoe}')}")


def _show_findings(findings: "Findings") -> None:
    import numpy as np
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    log = findings.log
    low, span = log.low, log.high - log.low
    console = Console()
    users = len(set(log.user.tolist()))
    console.print(
        f"{len(log)} rounds of {users} users; propensities {log.propensities}; "
        f"the policy of the log itself: {low + span * log.reward.mean():.3f}",
        highlight=False,
    )
    for note in log.notes:
        console.print(escape(note), highlight=False)
    if findings.judge is not None:
        console.print(f"the run was trained on: {escape(findings.judge.name)}", highlight=False)
    table = Table("policy", "value", "95 % over users", "effective sample", "by", "")
    for valued in sorted(findings.policies, key=lambda v: -v.best.value):
        best = valued.best
        table.add_row(
            escape(valued.name), f"{low + span * best.value:.3f}",
            f"{low + span * best.low:.3f} to {low + span * best.high:.3f}",
            f"{valued.effective_sample:.0f}", valued.chosen, escape(valued.warning),
        )  # fmt: skip
    console.print(table)
    for name, reason in findings.left_out.items():
        console.print(f"{escape(name)}: not valued, {escape(reason)}", highlight=False)
    if findings.interaction is not None:
        test = findings.interaction
        console.print(
            f"Does the best provider depend on the persona? p = {test.p:.3f} (permutation test of "
            f"provider x trait; a gain of {span * test.gain:.2f} would be found with a chance of "
            f"{test.power:.0%}).",
            highlight=False,
        )
    if findings.gain is not None:
        gain = findings.gain
        console.print(
            f"Choosing by persona instead of the best single provider: {span * gain.value:+.3f} "
            f"({span * gain.low:+.3f} to {span * gain.high:+.3f}, over users). {gain.advice}",
            highlight=False,
        )
    if findings.judge is not None:
        judge = findings.judge
        worth = float(np.median([x.worth for x in judge.providers.values()]))
        console.print(
            f"The judge makes the people's ratings worth {worth:.2f} times as many (median over "
            f"providers, prediction-powered). {judge.prior.warning}".rstrip(),
            highlight=False,
        )


@app.command
def serve(
    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN", help="Run directories; several share the decisions."),
    ],
    /,
    *,
    policies: tuple[str, ...] = (),
    shares: tuple[float, ...] = (),
    explore: str = "epsilon=0.1",
    log: str | None = None,
    scale: str = "1-5",
    host: str = "127.0.0.1",
    port: int = 8000,
    rate: float = 5000.0,
) -> None:
    """Serve trained policies over HTTP: who should serve this person, and how was it liked?

    Every decision is in the log, with its probability, before it is answered; `rlli evaluate --log`
    reads that log. A key comes from the environment variable RLLI_SERVE_KEY.

    Example: rlli serve runs/paper --explore softmax=0.05

    Args:
        policies: One name for each run; the best one that knows the persona if not given.
        shares: Of the decisions, one for each run; equal if not given.
        explore: epsilon=SHARE or softmax=TEMPERATURE (of predicted QoE, 0 to 1).
        log: sqlite:///FILE or postgresql://user@host/database; decisions.sqlite in the first run if
            not given.
        scale: Of the ratings that people give, such as 1-7.
        host: Address to listen on; others than this machine's own need a key.
        port: To listen on; 0 takes a free one.
        rate: Requests a second that one address may make.
    """
    from rlli_jax.experiments import deploying

    if not runs:
        raise InputError("rlli serve needs a run directory; give one of `rlli run`.")
    _cache_compilations()
    deploying.serve(
        runs, policies=policies, shares=shares, explore=explore, log=log, scale=scale, host=host,
        port=port, rate=rate,
    )  # fmt: skip


@app.command
def export(
    run: Run,
    file: Annotated[
        tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE", help="Where to write it.")
    ],
    /,
    policy: str | None = None,
) -> None:
    """Write a trained policy to a file that serves with JAX alone, without this package.

    FILE.json beside it tells what the policy's inputs mean.

    Example: rlli export runs/paper policy.bin --policy PPO

    Args:
        policy: Name of the policy; the best one that knows the persona if not given.
    """
    from rlli_jax.experiments import serving

    trained = serving.load_policy(run, policy)
    print(f"{trained.name}, seed {trained.seed}: {serving.export_policy(trained, file)}")


@app.command
def schema(kind: str = "selection") -> None:
    """Print the JSON schema of a study's file, by which editors complete and check YAML.

    Example: rlli schema > study.schema.json, then in the file, as its first line:
    # yaml-language-server: $schema=study.schema.json

    Args:
        kind: Of the study: selection, market, teaching, environment, or package.module:name.
    """
    import json

    from rlli_jax.experiments.schema import schema as schema_of
    from rlli_jax.studies import study_kind

    print(json.dumps(schema_of(study_kind(kind, "--kind").part("config")), indent=2))


@app.command
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
    _study("teach", config, overrides, output, resume, overwrite)


@app.command
def cache(
    action: tyro.conf.Positional[Literal["stats", "verify", "export", "import", "prune"]],
    file: Annotated[
        tyro.conf.Positional[Path | None],
        tyro.conf.arg(metavar="FILE", help="JSON lines (.gz: compressed) for export and import."),
    ] = None,
    /,
    store: str | None = None,
    judge: str = "",
    days: float | None = None,
    failed: bool = False,
    invalid: bool = False,
) -> None:
    """Look after the store of language models' answers.

    Example: rlli cache stats

    Args:
        store: A file or postgresql://user@host/database; the user's data folder if not given.
        judge: prune only answers of judges in whose description this occurs.
        days: prune only answers older than this.
        failed: prune only failures.
        invalid: prune only answers that are no rating, so that they are asked again.
    """
    from contextlib import closing

    from rlli_jax.oracle import housekeeping, open_store

    if (file is None) == (action in ("export", "import")):
        raise InputError(
            f"rlli cache {action} {'needs a file' if file is None else 'takes no file'}."
        )
    reads = action in ("stats", "verify", "export")
    with closing(open_store(store, read_only=reads)) as answers:
        if action == "stats":
            print(housekeeping.describe(answers))
        elif action == "verify":
            verification = housekeeping.verify(answers)
            print(verification)
            if not verification.sound:
                sys.exit(1)
        elif action == "export" and file is not None:
            print(f"{housekeeping.export_answers(answers, file):,} answers written to {file}")
        elif action == "import" and file is not None:
            print(f"{housekeeping.import_answers(answers, file):,} new answers from {file}")
        else:
            pruned = housekeeping.prune(
                answers, judge=judge, days=days, failed=failed, invalid=invalid
            )
            print(f"{pruned:,} answers deleted")


# What a command takes, of the kinds of studies and of sweeps; what is not named takes all.
JUDGED = ("selection", "market")
TAKES = {"judge": JUDGED, "examine": JUDGED, "train": JUDGED, "teach": ("teaching",)}


def _study(
    command: str,
    config: Path,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
    overwrite: bool,
    *,
    train: bool = True,
    reported: bool = True,
    engine: Literal["local", "ray"] = "local",
    track: Literal["tensorboard", "wandb"] | None = None,
) -> None:
    """Carry out what a file holds, with or without training and report."""
    from rlli_jax import studies
    from rlli_jax.experiments.sweeps import tracking
    from rlli_jax.experiments.sweeps.config import Sweep
    from rlli_jax.experiments.sweeps.devices import use_host_devices

    existing = _existing(resume, overwrite)
    # Or hours of training would come before the bad news.
    if track is not None:
        tracking.prepare(track)
    if engine == "ray":
        from rlli_jax.experiments.sweeps import ray_engine

        ray_engine.package()
    study = _load(command, config, overrides)
    if isinstance(study, Sweep):
        use_host_devices()
    path = output if output is not None else studies.directory_of(study)
    _cache_compilations()

    from rich.console import Console

    options = ["--engine", engine] if engine != "local" else []
    options += ["--track", track] if track is not None else []
    with _resumable(command, config, overrides, path, *options):
        studies.carry_out(study, path, existing, Console(), train=train, engine=engine)
        if track is not None:
            print(tracking.track(track, path / "sweep.nc"))
        if reported:
            report(path)
        else:
            print(f"run directory: {path}")


def _load(command: str, config: Path, overrides: Sequence[str]) -> "Study":
    """What a file holds. InputError if it is of a kind that a command does not carry out."""
    from rlli_jax import studies
    from rlli_jax.experiments.sweeps.config import Sweep

    study = studies.load_study(config, overrides)
    swept, kind = isinstance(study, Sweep), studies.kind_name(study)
    if command == "sweep" and not swept:
        raise InputError(
            f"{config}: the block sweep is missing; it names the keys to vary, see "
            "configs/sweep.yaml."
        )
    if command in TAKES and (swept or kind not in TAKES[command]):
        words = "with a sweep" if swept else studies.study_kind(kind).words
        raise InputError(
            f"{config} is a study {words}, which rlli {command} does not take; carry it out with: "
            f"{shlex.join(['rlli', 'run', str(config), *overrides])}."
        )
    return study


@contextmanager
def _resumable(
    command: str, config: Path, overrides: Sequence[str], path: Path, *options: str
) -> Iterator[None]:
    """After Ctrl-C, and where memory does not suffice, name the command that goes on."""
    resume = [] if command == "train" else ["--resume"]  # it always goes on
    words = [str(config), *overrides]
    if not config.is_file():  # a pipe, which cannot be read again
        words = [str(path / "config.yaml")]
    words = ["rlli", command, *words, "--output", str(path), *options, *resume]
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{path} keeps everything up to the last checkpoint; go on with:\n  {shlex.join(words)}"
        ) from None
    except (MemoryError, RuntimeError) as error:
        wanted = _wanted_memory(error)
        if wanted is None:
            raise
        raise InputError(
            f"memory does not suffice ({wanted}): make buffers smaller, or take fewer seeds, "
            "environments, users or samples; what is finished is kept, and what needs no change "
            f"goes on with: {shlex.join(words)}"
        ) from None


def _wanted_memory(error: Exception) -> str | None:
    """What was wanted where memory did not suffice, by NumPy or by XLA; None of other errors."""
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return None
    return str(error).partition("\n")[0] or "an allocation failed"


def _existing(resume: bool, overwrite: bool) -> Literal["refuse", "resume", "overwrite"]:
    """What to do with a directory that holds an earlier run."""
    if resume and overwrite:
        raise InputError("--resume and --overwrite contradict each other; give one of them.")
    return "overwrite" if overwrite else "resume" if resume else "refuse"


def _cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder: the next run starts at once."""
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlli_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # JAX keeps only what took a second; together the small programs of a study take three.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is missing
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()).rstrip(".") or "its plugin is not installed"
        raise InputError(
            f"JAX cannot use the devices that JAX_PLATFORMS={asked} asks for ({reason}): unset "
            "JAX_PLATFORMS to take what is there, or install jax with their plugin, such as "
            "jax[cuda12]."
        ) from None


def _overrides_together(arguments: Sequence[str]) -> list[str]:
    """Overrides may stand on both sides of options: move all of them behind the config.

    What is KEY=VALUE, but neither an option nor an option's value, is an override.
    """
    command = globals().get(arguments[0].replace("-", "_")) if arguments else None
    parameters = inspect.signature(command).parameters if inspect.isfunction(command) else {}
    if "overrides" not in parameters:
        return list(arguments)
    flags = {name for name, parameter in parameters.items() if parameter.annotation is bool}
    plain: list[str] = []
    overrides: list[str] = []
    options: list[str] = []
    value_follows = False
    for argument in arguments:
        name = argument.lstrip("-").removeprefix("no-").replace("-", "_")
        if value_follows or argument.startswith("-"):
            options.append(argument)
            value_follows = not value_follows and "=" not in argument and name in parameters
            value_follows &= name not in flags
        else:
            # The first two words are the command and the config.
            (overrides if len(plain) >= 2 else plain).append(argument)
    return [*plain, *overrides, *options]


_ASCII = {"–": "-", "—": "-", "−": "-", "×": "x", "±": "+-", "…": "...", "→": "->", "•": "*"}
_ASCII |= {"“": '"', "”": '"', "‘": "'", "’": "'"}


def _spell(error: UnicodeError) -> tuple[str, int]:
    """For a terminal without Unicode: the nearest ASCII, or a question mark."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    plain = (_ASCII.get(c) or _unaccented(c) or "?" for c in found)
    return "".join(plain), error.end


def _unaccented(character: str) -> str:
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()


def _fit_terminal() -> None:
    """Let no character that the terminal cannot show end the program, or come out as garbage."""
    codecs.register_error("rlli.spell", _spell)
    locale = os.environ.get("LC_ALL") or os.environ.get("LANG")
    # In the C locale Python writes UTF-8 all the same, unless it is told an encoding.
    plain = locale in ("C", "POSIX") and not os.environ.keys() & {"PYTHONIOENCODING", "PYTHONUTF8"}
    for stream in (sys.stdout, sys.stderr):
        settings: dict[str, Any] = {"encoding": "ascii"} if plain else {}
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="rlli.spell", **settings)


_WARNING_TEXT = warnings.formatwarning


def _warning_text(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of this package as people read it; all others as ``warnings`` writes them."""
    if Path(__file__).parent in Path(filename).parents:
        return f"rlli: warning: {message}\n"
    return _WARNING_TEXT(message, category, filename, lineno, line)


def main() -> None:
    """Entry point: one sentence for an InputError (exit status 2) and for Ctrl-C (130)."""
    _fit_terminal()
    warnings.formatwarning = _warning_text
    if sys.argv[1:] == ["--version"]:
        from rlli_jax import __version__

        print(f"rlli {__version__}")
        return
    try:
        app.cli(
            prog="rlli",
            args=_overrides_together(sys.argv[1:]),
            description="Reinforcement learning with language-model interaction, "
            "at accelerator speed. Start with: rlli run configs/paper.yaml",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except InputError as error:
        print(f"rlli: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        wanted = _wanted_memory(error)
        if wanted is None:
            raise
        print(
            f"rlli: memory does not suffice ({wanted}): make what is asked for smaller.",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"rlli: stopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(130)  # 128 + SIGINT, as shells have it


if __name__ == "__main__":
    main()
