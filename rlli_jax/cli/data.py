"""Commands that show users, tables of QoE and the store of answers."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlli_jax.cli.arguments import Run
from rlli_jax.errors import InputError


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
