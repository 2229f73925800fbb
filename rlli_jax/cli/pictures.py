"""Commands about pictures that providers generate."""

from pathlib import Path
from typing import Annotated, Any

import tyro

from rlli_jax.cli.arguments import Config, Overrides
from rlli_jax.cli.carrying_out import load
from rlli_jax.errors import InputError


def generate(
    config: Config,
    overrides: Overrides = (),
    /,
    dry_run: bool = False,
    export: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
) -> None:
    """Only make the pictures of a study whose catalog is generated; no judge is asked.

    Pictures are kept in a store and never made or paid for twice, whatever stops this; several
    processes may fill one store together.

    Example: rlli generate configs/generate.yaml --dry-run

    Args:
        dry_run: Only say how many pictures there are, how many are kept, and what the rest costs.
        export: Also copy them into this folder, with a manifest.csv that catalog.manifest reads.
    """
    from rich.console import Console

    block = _generated("generate", config, overrides)
    if dry_run:
        print(block.plan().describe())
        return
    pictures = block.load(Console())
    if export is not None:
        from rlli_jax.generation.exporting import export_pictures

        print(f"{export_pictures(pictures, export):,} pictures in {export}")


def measure_providers(
    config: Config,
    overrides: Overrides = (),
    /,
    output: Annotated[Path, tyro.conf.arg(metavar="FLEET.json")] = Path("fleet.json"),
    steps: str = "10,20,40",
    repeats: int = 3,
    clock: float = 1.0,
) -> None:
    """Measure how long the providers of a study take for how many denoising steps, on this machine.

    Writes a fleet for the edge market, and shows its runtime as a study of the market takes it; in
    place of AGOD's constants. Providers of kind diffusers only. No picture is kept.

    Example: rlli measure-providers configs/generate.yaml --output fleet.json

    Args:
        output: Where the fleet goes.
        steps: Numbers of denoising steps, with commas; the market's demands.
        repeats: Pictures of each.
        clock: Seconds of the market for one that is measured; its clock knows whole seconds only.
    """
    from rich.console import Console

    from rlli_jax.envs.edge_market import Fleet
    from rlli_jax.generation.measuring import fitted, fleet_of, measure

    counts = sorted({int(count) for count in steps.split(",") if count.strip().isdecimal()})
    if len(counts) < 2 or counts[0] < 1 or repeats < 1:
        raise InputError(
            "measure-providers: give --steps two or more positive numbers, such as 10,20,40, and "
            "--repeats one."
        )
    providers, prompt = _generated("measure-providers", config, overrides).measurable()
    console, profiles = Console(), []
    for provider in providers:
        with console.status(f"measuring {provider.name}"):
            profiles.append(measure(provider, prompt, counts, repeats))
        took = ", ".join(
            f"{count} steps {seconds:.3g} s"
            for count, seconds in zip(profiles[-1].steps, profiles[-1].median(), strict=True)
        )
        console.print(f"{provider.name}: {took} (medians of {repeats})", highlight=False)
    found = fitted(profiles, clock)
    Fleet(**fleet_of(found, counts[-1])).save(output)
    runtime = ", ".join(f"{number:.6g}" for number in found.runtime)
    power = "could not be measured" if found.watts is None else f"{found.watts:.1f} W"
    print(
        f"market:\n  fleet: {{file: {output}}}\n  demands: {counts}\n"
        f"  runtime: [{runtime}]\n"
        f"# The line misses medians by {found.error:.1%} at most; power {power}."
    )


def _generated(command: str, config: Path, overrides: tuple[str, ...]) -> Any:
    """The block ``catalog.generate`` of a study. InputError if it has none."""
    study: Any = load(command, config, overrides)
    catalog = getattr(study, "catalog", None)
    if catalog is None or catalog.generate is None:
        raise InputError(
            f"{config} generates no pictures; give its catalog a block generate, see "
            "configs/generate_tiny.yaml."
        )
    return catalog.generate
