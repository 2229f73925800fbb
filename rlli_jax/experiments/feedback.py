"""A log of people beside a run: what its policies, and simpler ones, would have been worth."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlli_jax.errors import InputError
from rlli_jax.experiments import serving
from rlli_jax.experiments.policies import Learned
from rlli_jax.experiments.run_directory import read_config
from rlli_jax.feedback import (
    Gain,
    Interaction,
    Log,
    Valued,
    baselines,
    cross_fitted,
    gain_of_personalising,
    interaction_test,
    log_from_frame,
    value_policies,
)
from rlli_jax.feedback.evaluation import BY_CONTEXT, Estimate
from rlli_jax.feedback.log import COLUMNS, Propensities
from rlli_jax.judges import scale_of
from rlli_jax.personas import TRAIT_NAMES, TRAITS
from rlli_jax.personas.population import on_trait_scale, trait_range
from rlli_jax.service import read_decisions
from rlli_jax.tabular import as_table, read_table


@dataclass(frozen=True)
class Findings:
    """What a log says."""

    log: Log
    policies: tuple[Valued, ...]
    """The logging policy's own mean is ``log.reward.mean()``."""
    interaction: Interaction | None
    """None where the log tells nothing of its users, or too little to test."""
    gain: Gain | None
    left_out: Mapping[str, str]
    """Policies of the run that cannot be valued, and why."""

    def summary(self) -> dict[str, Any]:
        """As plain values, for a JSON file; values are QoE from 0 to 1."""
        return {
            "rounds": len(self.log),
            "users": self.log.users,
            "propensities": self.log.propensities,
            "notes": list(self.log.notes),
            "logging_policy": float(self.log.reward.mean()),
            "policies": [_summary_of(valued) for valued in self.policies],
            "interaction": None if self.interaction is None else asdict(self.interaction),
            "gain_of_personalising": None if self.gain is None else asdict(self.gain),
            "left_out": dict(self.left_out),
        }


def _summary_of(valued: Valued) -> dict[str, Any]:
    def plain(estimate: Estimate) -> dict[str, float]:
        return {name: float(value) for name, value in estimate._asdict().items()}

    estimates = {name: plain(estimate) for name, estimate in valued.estimates.items()}
    return asdict(valued) | {"estimates": estimates, "safe": plain(valued.safe)}


def read_log(
    where: str | Path,
    *,
    qoe: str = "qoe",
    scale: str | None = None,
    trait_scale: str = "1-5",
    propensities: Propensities | None = None,
) -> Log:
    """A log from a table of any kind (:func:`rlli_jax.tabular.read_table`), or of a service.

    Columns: ``provider`` and the one named by ``qoe``; ``user``, ``request``, ``propensity``,
    ``offered`` and the five traits (letters or names) are used if they are there. Traits become
    those of the 1-5 scale.

    Args:
        where: a file, or ``sqlite:///FILE`` or ``postgresql://user@host/database`` of
            ``rlli serve``.
        qoe: the column of the QoE.
        scale: of the QoE; 1-5 if absent, and the service's own for its logs.
        trait_scale: of the traits.
        propensities: where they come from, if not from the column ``propensity``.

    Raises:
        InputError: a column is missing or a cell is not what it should be.
    """
    if "://" in str(where):
        frame, given = read_decisions(str(where))
        if frame.empty:
            raise InputError(f"the log {where} has no decisions yet.")
        table = as_table(str(where), frame)
        if scale not in (None, given):
            raise InputError(f"the log {where} has ratings on the scale {given}, not {scale}.")
        scale = given
    else:
        table = read_table(where, "a round")
    rating = scale_of(scale or "1-5")
    table.require("provider", advice="one names the provider that was chosen")
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        column = table.find(name)
        if column is not None:
            numbers = name == "propensity"
            columns[name] = table.numbers(column) if numbers else table.frame[column].to_numpy()
    columns[qoe] = table.numbers(table.require(qoe, advice="name the one of the QoE with --qoe"))
    found = [table.find(*names) for names in zip(TRAITS, TRAIT_NAMES, strict=True)]
    context: tuple[str, ...] = ()
    if all(found):
        traits = np.stack([table.numbers(column) for column in found if column], 1)
        low, high = trait_range(trait_scale)
        for row, place in np.argwhere((traits < low) | (traits > high))[:1]:
            table.fail(
                f"column {found[place]!r}: {traits[row, place]:g} is not on the scale "
                f"{trait_scale}; name the scale of the traits with --trait-scale",
                int(row),
            )
        columns |= dict(zip(TRAITS, on_trait_scale(traits, trait_scale).T, strict=True))
        context = tuple(TRAITS)
    return log_from_frame(
        pd.DataFrame(columns),
        qoe=qoe,
        scale=(rating.low, rating.high),
        context=context,
        propensities=propensities,
    )


def evaluate(log: Log, run: Path | None = None) -> Findings:
    """Value what a log alone suggests and, with a run, each of its policies that can be.

    Raises:
        InputError: the run cannot be read, or its providers are not those of the log.
    """
    q = cross_fitted(log)
    knows_traits = set(TRAITS) <= set(log.context_names)
    policies, left_out = baselines(log, q), {}
    if not knows_traits:
        del policies[BY_CONTEXT]
    if run is not None:
        for name, result in _policies_of(run, log).items():
            if isinstance(result, str):
                left_out[name] = result
            else:
                policies[name] = result
    interaction = gain = None
    if knows_traits:
        gain = gain_of_personalising(log, q)
        try:
            interaction = interaction_test(log)
        except InputError as error:
            left_out["test of provider x trait"] = str(error)
    return Findings(log, tuple(value_policies(log, policies, q=q)), interaction, gain, left_out)


def _policies_of(run: Path, log: Log) -> dict[str, np.ndarray | str]:
    """Of each policy of a run that learned: probabilities [n, L], or why it has none here."""
    config = read_config(run)
    result: dict[str, np.ndarray | str] = {}
    for name, block in config.policies.items():
        if not isinstance(block, Learned):
            continue
        if "persona" not in block.observation or "user" in block.observation:
            result[name] = "it does not choose by persona"
            continue
        if not set(TRAITS) <= set(log.context_names):
            result[name] = "the log has no columns of the five traits"
            continue
        trained = serving.load_policy(run, name)
        known = set(trained.table.providers)
        if known != set(log.providers):
            raise InputError(
                f"the log has the providers {', '.join(log.providers)}, the run "
                f"{', '.join(trained.table.providers)}; give them the same names."
            )
        place = [log.providers.index(provider) for provider in trained.table.providers]
        columns = [log.context_names.index(trait) for trait in TRAITS]
        personas, back = np.unique(log.context[:, columns], axis=0, return_inverse=True)
        chosen = serving.choices(trained, personas)  # [personas, R]
        probability = np.zeros((len(personas), len(log.providers)))
        for request in chosen.T:
            probability[np.arange(len(personas)), np.asarray(place)[request]] += 1 / chosen.shape[1]
        result[name] = _among_offered(probability[back.reshape(-1)], log.offered)
    return result


def _among_offered(probability: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """Where the choice was not offered, uniform among what was: [n, L]."""
    inside = np.where(offered, probability, 0)
    missing = 1 - inside.sum(1, keepdims=True)
    return np.asarray(inside + missing * offered / offered.sum(1, keepdims=True))
