"""Commands by which trained policies meet people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from rlli_jax.cli.arguments import Run
from rlli_jax.cli.carrying_out import cache_compilations
from rlli_jax.errors import InputError

if TYPE_CHECKING:
    from rlli_jax.run_files.people import LogFindings


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
    from rlli_jax.feedback.reading import read_log
    from rlli_jax.report.people import render_findings

    cache_compilations()
    read = read_log(log, qoe=qoe, scale=scale, trait_scale=trait_scale, propensities=propensities)
    findings = feedback.evaluate(read, run)
    _show_findings(findings)
    if output is not None:
        findings.write(output)
        print(f"findings: {output}")
        print(f"page: {render_findings(output, f'{Path(log).name}, {qoe}')}")


def _show_findings(findings: "LogFindings") -> None:
    import numpy as np
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    low, high = findings.scale
    span = high - low
    console = Console()
    console.print(
        f"{findings.rounds} rounds of {findings.users} users; propensities "
        f"{findings.propensities}; the policy of the log itself: "
        f"{low + span * findings.logging_policy:.3f}",
        highlight=False,
    )
    for note in findings.notes:
        console.print(escape(note), highlight=False)
    if findings.judge is not None:
        console.print(f"the run was trained on: {escape(findings.judge.judge)}", highlight=False)
    table = Table("policy", "value", "95 % over users", "effective sample", "by", "")
    for valued in sorted(findings.policies, key=lambda v: -v.best.value):
        best = valued.best.cut()
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
        assert test.size is not None  # the test was just made
        console.print(
            f"Does the best provider depend on the persona? p = {test.p:.3f} (permutation test of "
            f"provider x trait; tastes that differ by {span * test.size:.2f} would be found with a "
            f"chance of {test.power:.0%}, and choosing by them gain about {span * test.gain:.3f}).",
            highlight=False,
        )
    if findings.gain_of_personalising is not None:
        gain = findings.gain_of_personalising
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
            f"providers, prediction-powered). {judge.warning}".rstrip(),
            highlight=False,
        )


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
        explore: epsilon=SHARE, softmax=TEMPERATURE (of predicted QoE, 0 to 1) or thompson=DRAWS.
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
    cache_compilations()
    deploying.serve(
        runs, policies=policies, shares=shares, explore=explore, log=log, scale=scale, host=host,
        port=port, rate=rate,
    )  # fmt: skip


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
