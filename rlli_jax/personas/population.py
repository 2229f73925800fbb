"""Populations: read from files, written to CSV, or sampled from published norms."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np

from rlli_jax.errors import InputError, shown
from rlli_jax.files import write_text
from rlli_jax.personas import norms
from rlli_jax.personas.bigfive_test import read_results
from rlli_jax.personas.persona import (
    HIGH,
    LOW,
    TRAIT_NAMES,
    TRAITS,
    Persona,
    Wording,
    default_names,
)


@dataclass(frozen=True)
class Population:
    """K personas with distinct names, whose traits are known of all or of none.

    Raises:
        InputError: there is no persona, two have the same name, or traits are known of some only.
    """

    personas: tuple[Persona, ...]
    """K of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "personas", tuple(self.personas))
        if not self.personas:
            raise InputError("A population needs at least one persona, but was given none.")
        name, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"{count} personas of the population are named {name!r}; give each its own name."
            )
        unknown = [persona.name for persona in self.personas if persona.traits is None]
        if 0 < len(unknown) < len(self.personas):
            raise InputError(
                f"The traits of {len(unknown)} of {len(self.personas)} personas are unknown, "
                f"{unknown[0]!r} the first; give those of all, or of none."
            )

    @classmethod
    def named(cls, names: Iterable[str]) -> Population:
        """People of whom nothing is known but their names."""
        return cls(tuple(Persona(name) for name in names))

    def select(self, names: Iterable[str]) -> Population:
        """These people, in the order given. Raises KeyError for a name that is not there."""
        known = {persona.name: persona for persona in self.personas}
        return Population(tuple(known[name] for name in names))

    def worded(self, wording: Wording) -> Population:
        """The same people, described to language models in this wording."""
        return Population(tuple(replace(persona, wording=wording) for persona in self.personas))

    def __len__(self) -> int:
        return len(self.personas)

    def __repr__(self) -> str:
        unknown = "" if self.personas[0].traits is not None else ", traits unknown"
        return f"Population({len(self)} personas from {self.names[0]!r}{unknown})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K personas."""
        return tuple(persona.name for persona in self.personas)

    @property
    def examples(self) -> int:
        """How many ratings of other pictures are known of all of them together."""
        return sum(len(persona.rated) for persona in self.personas)

    @property
    def traits(self) -> np.ndarray | None:
        """Traits of the K personas: float32 [K, 5] on the 1-5 scale, in order O C E A N.

        None if they are unknown.
        """
        traits = [persona.traits for persona in self.personas if persona.traits is not None]
        return np.array(traits, dtype=np.float32) if traits else None

    @classmethod
    def from_csv(
        cls, path: str | PathLike[str], *, traits: bool = True, scale: str = "1-5"
    ) -> Population:
        """Read a table (CSV, TSV, Parquet, Excel) with a name and five traits a row.

        Columns: ``name`` (or ``user``) and the traits, as letters or in full (``O`` or
        ``Openness``), capitals aside, in any order; other columns are ignored. Without ``traits``
        the names alone are read, and the personalities are unknown.

        ``scale`` is that of the file: two ends ``a-b``, which are mapped linearly to 1 and 5, or
        ``T`` for T-scores (mean 50, standard deviation 10), which are placed in the pooled norm
        (:func:`rlli_jax.personas.norms.pooled_norm`) and clipped to 1-5.

        Raises:
            InputError: the file cannot be read, lacks a column or any persona, repeats a name, or
                holds a trait that is not a number on the scale.
        """
        from rlli_jax.tabular import read_table  # and with it pandas

        table = read_table(path, "a persona")
        advice = f"name them name, {', '.join(TRAITS)}" if traits else "one holds the names"
        names = table.names(table.require("name", "user", advice=advice))
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        for row, name in enumerate(names):
            if first[name] != row:
                table.fail(
                    f"column 'name': {name!r} stands in row {table.frame.index[first[name]]} too; "
                    "give each persona its own name",
                    row,
                )
        if not traits:
            return cls.named(names)
        low, high = trait_range(scale)
        columns = []
        for letter, name in zip(TRAITS, TRAIT_NAMES, strict=True):
            column = table.require(letter, name, advice=advice)
            values = table.numbers(column)
            for wrong in np.flatnonzero(~((values >= low) & (values <= high))):
                cell = table.frame[column].iloc[wrong]
                given = repr(cell) if cell else "nothing"
                table.fail(
                    f"column {column!r}: got {given}; give a number from {low:g} to {high:g}",
                    int(wrong),
                )
            columns.append(values)
        values = on_trait_scale(np.stack(columns, 1), scale)
        people = zip(names, values.tolist(), strict=True)
        return cls(tuple(Persona(name, tuple(vector)) for name, vector in people))

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write name,O,C,E,A,N, or name alone where the traits are unknown.

        ``from_csv`` reads these names and traits back, told ``traits=False`` of names alone.

        Raises:
            InputError: the file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("name", *(TRAITS if self.traits is not None else ())))
        writer.writerows((p.name, *(p.traits or ())) for p in self.personas)
        write_text(path, text.getvalue())

    @classmethod
    def from_bigfive_test(cls, path: str | PathLike[str]) -> Population:
        """Read results in the form of the open-source test behind bigfive-test.com.

        One person's result is an object with the keys O, C, E, A and N. Each value is what that
        project's ``calculateScore`` returns, ``{"score": 84, "count": 24, ...}``: the sum of
        ``count`` answers from 1 to 5, so that the trait is score / count. A plain number is taken
        as the mean answer itself. All other keys, ``facet`` and ``result`` among them, are ignored.
        A result may also be the list of domains behind a results page (``{"domain": "A", "score":
        70, "count": 24}``), or the list of keyed answers that the site stores (``{"domain": "N",
        "score": 1}``), as it is or under one of the keys of LISTS.

        The file holds one person, a list of persons, or an object ``{name: person}``. In the first
        two a person may carry a ``name``; who has none is called "User 1", "User 2", ... by place.

        Raises:
            InputError: the file cannot be read, is not such JSON, repeats a name, or holds a trait
                that is missing or not a number from 1 to 5.
        """
        return cls(read_results(path))

    @classmethod
    def sample(
        cls,
        size: int,
        *,
        group: str,
        seed: int,
        correlations: str = "davies_2015_r_observed",
    ) -> Population:
        """Sample people from published norms: "User 1" to "User <size>".

        Traits are drawn from a multivariate normal with the group's means and standard deviations
        (Johnson's IPIP-NEO-120 norms, raw / 24) and published correlations between the traits,
        then clipped to 1-5. They are rounded to two decimals, finer than the 1/24 steps of the
        inventory, so that differences in the last bits between platforms do not show. The first
        people of a larger sample are those of a smaller one with the same seed.

        Args:
            size: number of people, K.
            group: one of ``norms.groups()``, such as ``"women 21-40"``.
            seed: seed of the NumPy generator, not negative.
            correlations: one of ``norms.correlation_names()``. The default is for observed test
                scores; the ``rho`` matrices are for latent traits.

        Raises:
            InputError: size or seed is not such a whole number, or a name is unknown.
        """
        for key, value, least in (("size", size, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(
                    f"The {key} of a sampled population is {shown(value)}; "
                    f"give a whole number of at least {least}."
                )
        mean, covariance = norms.traits_of(group, correlations)
        # Cholesky, not the default SVD: its factor is unique, so no sign depends on the platform.
        drawn = np.random.default_rng(seed).multivariate_normal(
            mean, covariance, size, method="cholesky"
        )
        people = np.round(np.clip(drawn, LOW, HIGH), 2).tolist()
        return cls(
            tuple(
                Persona(name, (o, c, e, a, n))
                for name, (o, c, e, a, n) in zip(default_names(size), people, strict=True)
            )
        )


def trait_range(scale: str) -> tuple[float, float]:
    """The ends of a scale of traits: ``a-b`` with a below b, or ``T`` (0 to 100).

    Raises:
        InputError: it is neither.
    """
    if scale == "T":
        return 0.0, 100.0
    match = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*[-–]\s*(-?\d+(?:\.\d+)?)\s*", scale)
    if match is None or not float(match[1]) < float(match[2]):
        raise InputError(
            f"The traits are on the scale {scale!r}; give two ends, the lower first, such as 1-7 "
            "or 0-100, or T for T-scores."
        )
    return float(match[1]), float(match[2])


def on_trait_scale(traits: np.ndarray, scale: str) -> np.ndarray:
    """Traits [K, 5] from the scale of a file to 1-5; see :meth:`Population.from_csv`."""
    if scale == "T":
        mean, sd = norms.pooled_norm()
        return np.clip(mean + sd * (traits - 50) / 10, LOW, HIGH)
    low, high = trait_range(scale)
    if (low, high) == (LOW, HIGH):
        return traits
    return LOW + (HIGH - LOW) * (traits - low) / (high - low)
