"""Results of the open-source test behind bigfive-test.com, in each of the forms that it has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from os import PathLike
from typing import Any

from rlli_jax.errors import InputError, shown
from rlli_jax.personas.persona import MISSING, TRAITS, Persona, default_names, trait_value

LISTS = ("answers", "domains", "results")  # keys of bigfive-test.com's lists


def read_results(path: str | PathLike[str]) -> tuple[Persona, ...]:
    """See :meth:`rlli_jax.personas.Population.from_bigfive_test`."""

    def refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        key, count = Counter(key for key, _ in pairs).most_common(1)[0] if pairs else ("", 0)
        if count > 1:
            raise InputError(
                f"{path} has the key {key!r} {count} times in one object; keep one of them."
            )
        return dict(pairs)

    try:
        with open(path, encoding="utf-8-sig") as file:
            # parse_int: one kind of number, and a score of a thousand digits becomes infinite.
            data = json.load(file, object_pairs_hook=refuse_repeats, parse_int=float)
    except OSError as error:
        raise InputError(_cannot_open(path, error)) from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a JSON file ({error}); give it the form "
            '{"O": {"score": 84, "count": 24}, "C": ..., "E": ..., "A": ..., "N": ...}.'
        ) from error

    if isinstance(data, Mapping) and any(
        (isinstance(value, Mapping) and not set(TRAITS + LISTS).isdisjoint(value))
        or (_is_listed(value) and key not in LISTS)
        for key, value in data.items()
    ):
        people = list(data.items())
    else:
        results = data if isinstance(data, list) and not _is_listed(data) else [data]
        people = [
            (result.get("name", default) if isinstance(result, Mapping) else default, result)
            for default, result in zip(default_names(len(results)), results, strict=True)
        ]
    if not people:
        raise InputError(f"{path} has no person; give it the results of at least one.")
    repeated, count = Counter(str(name) for name, _ in people).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path} names {count} persons {repeated!r}; give each its own name.")

    return tuple(
        _from_result(name, result, f"{path}, person {place}")
        for place, (name, result) in enumerate(people, start=1)
    )


def _from_result(name: Any, result: Any, where: str) -> Persona:
    """Persona from one person's result of a Big Five test, in any of its forms."""
    result = _by_trait(result, where)
    if not isinstance(result, Mapping):
        raise InputError(f"{where}: got {shown(result)}; give an object with {', '.join(TRAITS)}.")
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: the name is {shown(name)}; give a text that is not empty.")
    where = f"{where} ({name})"
    traits = []
    for trait in TRAITS:
        if trait not in result:
            raise InputError(f"{where}: the result of {trait!r} is missing; add it.")
        value = result[trait]
        if isinstance(value, Mapping):
            score, count = value.get("score"), value.get("count")
            if not (isinstance(score, float) and isinstance(count, float) and count > 0):
                raise InputError(
                    f"{where}, trait {trait!r}: score is {shown(score)} and count is "
                    f"{shown(count)}; give the sum of the answers and how many there are."
                )
            traits.append(trait_value(score / count, f"{where}, trait {trait!r}, score / count"))
        else:
            traits.append(trait_value(value, f"{where}, trait {trait!r}"))
    o, c, e, a, n = traits
    return Persona(name, (o, c, e, a, n))


def _by_trait(result: Any, where: str) -> Any:
    """A result as ``{trait: ...}``: from the list of domains of a results page, or of answers.

    A list of answers is what the site stores: one ``{"domain": "N", "score": 1}`` an item, keyed
    already. All domains must have about as many answers: see MISSING.
    """
    if isinstance(result, Mapping):
        listed = [result[key] for key in LISTS if isinstance(result.get(key), list)]
        if len(listed) != 1 or not set(TRAITS).isdisjoint(result):
            return result
        result = listed[0]
    if not _is_listed(result):
        return result
    if all("count" in item for item in result):
        domains = Counter(item["domain"] for item in result)
        twice = [domain for domain, count in domains.items() if count > 1]
        if twice:
            raise InputError(f"{where}: domain {twice[0]!r} is there twice; keep one result.")
        return {item["domain"]: item for item in result}
    scores: dict[str, list[float]] = {trait: [] for trait in TRAITS}
    seen = Counter(item["id"] for item in result if "id" in item)
    if seen and seen.most_common(1)[0][1] > 1:
        raise InputError(
            f"{where}: the answer {seen.most_common(1)[0][0]!r} is there twice; keep one person's "
            "answers in one list."
        )
    for item in result:
        if item["domain"] not in scores:
            raise InputError(
                f"{where}: domain {item['domain']!r} is unknown; the domains are "
                f"{', '.join(TRAITS)}."
            )
        place = f"{where}, answer {item.get('id', '')!r} of {item['domain']}"
        scores[item["domain"]].append(trait_value(item.get("score"), place))
    most = max(map(len, scores.values()))
    for trait, values in scores.items():
        if len(values) < (1 - MISSING) * most:
            raise InputError(
                f"{where}: {len(values)} answers of {trait!r} are there, but {most} of another "
                f"domain; at most {MISSING:.0%} may be missing."
            )
    return {trait: sum(values) / len(values) for trait, values in scores.items()}


def _is_listed(result: Any) -> bool:
    """Is this one person's list of domains or answers?"""
    return (
        isinstance(result, list)
        and bool(result)
        and all(
            isinstance(item, Mapping) and isinstance(item.get("domain"), str) for item in result
        )
    )


def _cannot_open(path: str | PathLike[str], error: OSError) -> str:
    return f"{path} cannot be opened ({error.strerror or error}); check the path."
