"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import tyro

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
