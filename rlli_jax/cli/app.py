"""The entry point, and the commands in the order in which the help lists them."""

import inspect
import sys
import warnings
from collections.abc import Callable, Sequence

import tyro

from rlli_jax.cli import data, people, pictures, studies
from rlli_jax.cli.carrying_out import wanted_memory
from rlli_jax.cli.terminal import fit_terminal, warning_text
from rlli_jax.errors import InputError

COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__.replace("_", "-"): command
    for command in (
        studies.run,
        studies.judge,
        pictures.generate,
        pictures.measure_providers,
        studies.examine,
        studies.train,
        studies.report,
        data.personas,
        data.table,
        studies.sweep,
        people.select,
        people.evaluate,
        people.serve,
        people.export,
        studies.schema,
        studies.teach,
        data.cache,
    )
}
app = tyro.extras.SubcommandApp()
for command in COMMANDS.values():
    app.command(command)


def overrides_together(arguments: Sequence[str]) -> list[str]:
    """Overrides may stand on both sides of options: move all of them behind the config.

    What is KEY=VALUE, but neither an option nor an option's value, is an override.
    """
    command = COMMANDS.get(arguments[0]) if arguments else None
    parameters = inspect.signature(command).parameters if command else {}
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


def main() -> None:
    """Entry point: one sentence for an InputError (exit status 2) and for Ctrl-C (130)."""
    fit_terminal()
    warnings.formatwarning = warning_text
    if sys.argv[1:] == ["--version"]:
        from rlli_jax import __version__

        print(f"rlli {__version__}")
        return
    try:
        app.cli(
            prog="rlli",
            args=overrides_together(sys.argv[1:]),
            description="Reinforcement learning with language-model interaction, "
            "at accelerator speed. Start with: rlli run configs/paper.yaml",
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except InputError as error:
        print(f"rlli: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        wanted = wanted_memory(error)
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
