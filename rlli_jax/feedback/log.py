"""A log: what was offered to whom, what was chosen with which probability, how it was liked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rlli_jax.errors import InputError

Propensities: TypeAlias = Literal["column", "shares", "estimate"]
PROPENSITIES: Mapping[str, str] = {
    "column": "as the log gives them",
    "shares": "each provider's share of the log, as where chance alone chose",
    "estimate": "estimated from users' traits by logistic regression, cross-fitted: "
    "wrong where something else decided too",
}
COLUMNS = ("user", "provider", "request", "propensity", "offered", "time")
FOLDS = 5


@dataclass(frozen=True)
class Log:
    """n rounds of one service; arrays are on the host.

    Raises:
        InputError: a number out of its range, an unknown provider, or a column of another length.
    """

    providers: tuple[str, ...]
    """L names."""
    action: np.ndarray
    """[n] int, which provider was chosen."""
    reward: np.ndarray
    """[n] float64, QoE in [0, 1]."""
    propensity: np.ndarray
    """[n] float64 in (0, 1], probability of that choice when it was made."""
    context: np.ndarray
    """[n, d] float64, what was known before the choice: traits, and a column for each request."""
    context_names: tuple[str, ...]
    """d names."""
    user: np.ndarray
    """[n] int, who a round is about: rounds of one user are one piece of evidence. Numbered from 0
    without gaps when the log is made."""
    offered: np.ndarray
    """[n, L] bool, which providers could be chosen."""
    request: np.ndarray | None = None
    """[n] text."""
    low: float = 0.0
    high: float = 1.0
    """The scale of the QoE as it was given."""
    propensities: str = PROPENSITIES["column"]
    """Where the propensities come from, in words."""
    notes: tuple[str, ...] = field(default=())
    """What was left out when it was read, in words."""

    def __post_init__(self) -> None:
        n = len(self.action)
        if n < 2:
            raise InputError(f"the log has {n} rounds; at least 2 are needed.")
        for name in ("reward", "propensity", "context", "user", "offered"):
            if len(getattr(self, name)) != n:
                raise InputError(f"{name} has {len(getattr(self, name))} rows, the log has {n}.")
        _require_probability(self.propensity)
        _require(self.reward, (self.reward >= 0) & (self.reward <= 1), "QoE", "on the scale")
        chosen = self.offered[np.arange(n), self.action]
        _require(self.action, chosen, "the chosen provider", "one of those offered")
        object.__setattr__(self, "user", np.unique(self.user, return_inverse=True)[1])

    def __repr__(self) -> str:
        return f"Log({len(self)} rounds, {self.users} users, {len(self.providers)} providers)"

    def __len__(self) -> int:
        return len(self.action)

    @property
    def users(self) -> int:
        """How many different users there are."""
        return int(self.user.max()) + 1

    def require_users(self) -> None:
        """Raise InputError if there are too few users to say how sure a value is."""
        if self.users < FOLDS:
            raise InputError(
                f"the log is of {self.users} user{'s' if self.users > 1 else ''}; values of "
                f"policies need at least {FOLDS}, as each user is valued by what others said."
            )

    def part(self, rows: np.ndarray) -> "Log":
        """These rounds only; ``rows``: [n] bool."""
        names = ("action", "reward", "propensity", "context", "user", "offered")
        request = None if self.request is None else self.request[rows]
        return replace(self, request=request, **{n: getattr(self, n)[rows] for n in names})

    @property
    def counts(self) -> np.ndarray:
        """How often each provider was chosen, [L] int."""
        return np.bincount(self.action, minlength=len(self.providers))


def _require(
    values: np.ndarray, valid: np.ndarray, what: str, need: str, rows: np.ndarray | None = None
) -> None:
    """Raise InputError for the first value that is not valid; ``rows``: numbers in the file."""
    for place in np.flatnonzero(~valid)[:1]:
        row = place + 1 if rows is None else rows[place]
        raise InputError(f"row {row} of the log: {what} is {values[place]}, it must be {need}.")


def _require_probability(propensity: np.ndarray, rows: np.ndarray | None = None) -> None:
    valid = (propensity > 0) & (propensity <= 1)
    _require(
        propensity, valid, "propensity", "in (0, 1]: what was chosen had some probability", rows
    )


def log_from_frame(
    frame: pd.DataFrame,
    *,
    qoe: str,
    scale: tuple[float, float],
    context: Sequence[str],
    columns: Mapping[str, str] | None = None,
    providers: Sequence[str] = (),
    propensities: Propensities | None = None,
) -> Log:
    """A log from a table with a row a round.

    Args:
        frame: with the column ``provider``; also used if there: ``user``, ``request``,
            ``propensity``, and ``offered`` (names with ``;`` between them).
        qoe: the column of the QoE; rounds without a value are left out and counted.
        scale: its lowest and highest value.
        context: columns of numbers that were known before the choice, such as traits.
        columns: other names for those columns.
        providers: all that there are, if some may never have been chosen.
        propensities: where they come from, see :data:`PROPENSITIES`; without it the column.

    Raises:
        InputError: a column is missing, a value is out of its range, or no propensities are given
            and nothing says how to get them.
    """
    columns = dict(columns or {})
    name = {known: columns.get(known, known) for known in COLUMNS}
    for column in (name["provider"], qoe, *context):
        if column not in frame.columns:
            raise InputError(
                f"the log has no column {column!r}; it has {', '.join(map(str, frame.columns))}."
            )
    frame = frame.reset_index(drop=True)
    for known in ("provider", "user", "request"):
        if name[known] in frame.columns:
            cells = frame[name[known]]
            blank = cells.isna() | (cells.astype(str).str.strip() == "")
            for row in np.flatnonzero(blank)[:1]:
                raise InputError(
                    f"row {row + 1} of the log: column {name[known]!r} is empty; fill it in, or "
                    "leave the row out."
                )
    notes = []
    answered = pd.to_numeric(frame[qoe], errors="coerce").notna()
    if not answered.all():
        notes.append(
            f"{int((~answered).sum())} of {len(frame)} rounds have no {qoe} and are left out"
        )
    frame = frame[answered]
    known = frame[list(context)].apply(pd.to_numeric, errors="coerce").notna().all(axis=1)
    if not known.all():
        notes.append(f"{int((~known).sum())} rounds lack {' or '.join(context)} and are left out")
    frame = frame[known]
    # Without the time, equal rows may be a user who was served twice.
    copies = frame.duplicated() & ({name["user"], name["time"]} <= set(frame.columns))
    if copies.any():
        notes.append(f"{int(copies.sum())} rows stand there twice and count once")
        frame = frame[~copies]
    if len(frame) < 2:
        raise InputError(f"the log has {len(frame)} complete rounds; at least 2 are needed.")

    chosen = frame[name["provider"]].astype(str).to_numpy()
    names = tuple(providers) or tuple(sorted(set(chosen)))
    for unknown in sorted(set(chosen) - set(names))[:1]:
        raise InputError(
            f"the log chose provider {unknown!r}, which is none of {', '.join(names)}."
        )
    place = {provider: i for i, provider in enumerate(names)}
    action = np.array([place[provider] for provider in chosen])
    offered = np.ones((len(frame), len(names)), bool)
    if name["offered"] in frame.columns:
        offered = _offered(frame[name["offered"]], place)
    numbers = frame[list(context)].to_numpy(np.float64)
    labels = tuple(context)
    request = None
    if name["request"] in frame.columns:
        request = frame[name["request"]].astype(str).to_numpy()
        kinds = sorted(set(request))
        if len(kinds) > 1:
            indicators = (request[:, None] == np.array(kinds)[None]).astype(np.float64)
            numbers, labels = np.hstack([numbers, indicators]), (*labels, *kinds)
    if name["user"] in frame.columns:
        user = pd.factorize(frame[name["user"]])[0]
    else:
        user = np.arange(len(frame))
    source = propensities or ("column" if name["propensity"] in frame.columns else None)
    if source is None:
        raise InputError(
            f"the log has no column {name['propensity']!r}; say where probabilities come from: "
            "propensities shares (chance alone chose) or estimate (from the users' traits)."
        )
    low, high = scale
    rows = frame.index.to_numpy() + 1
    reward = (frame[qoe].to_numpy(np.float64) - low) / (high - low)
    _require(reward, (reward >= 0) & (reward <= 1), "QoE",
             f"on the scale from {low:g} to {high:g}, which is 0 to 1 here", rows)  # fmt: skip
    propensity = _propensity(frame, name["propensity"], source, action, numbers, user, offered)
    _require_probability(propensity, rows)
    return Log(
        providers=names,
        action=action,
        reward=reward,
        propensity=propensity,
        context=numbers,
        context_names=labels,
        user=user,
        offered=offered,
        request=request,
        low=low,
        high=high,
        propensities=PROPENSITIES[source],
        notes=tuple(notes),
    )


def _offered(column: pd.Series, place: Mapping[str, int]) -> np.ndarray:
    offered = np.zeros((len(column), len(place)), bool)
    for row, text in enumerate(column.astype(str)):
        for provider in text.split(";"):
            if provider.strip() not in place:
                raise InputError(
                    f"row {row + 1} of the log offers {provider.strip()!r}, which is none of "
                    f"{', '.join(place)}."
                )
            offered[row, place[provider.strip()]] = True
    return offered


def _propensity(
    frame: pd.DataFrame,
    column: str,
    source: str,
    action: np.ndarray,
    context: np.ndarray,
    user: np.ndarray,
    offered: np.ndarray,
) -> np.ndarray:
    if source == "column":
        if column not in frame.columns:
            raise InputError(f"the log has no column {column!r} of propensities.")
        return frame[column].to_numpy(np.float64)
    if (offered.sum(0) > 0).sum() > len(set(action.tolist())):
        raise InputError(
            "a provider was offered but never chosen, so its probability cannot be told from the "
            "log; give a column of propensities, or leave it out of the providers."
        )
    if source == "shares":
        shares = np.bincount(action, minlength=offered.shape[1]) / len(action)
        within = np.where(offered, shares, 0)
        return shares[action] / within.sum(1)
    smallest = np.bincount(action)[np.unique(action)].min()
    groups = len(set(user.tolist()))
    if smallest < FOLDS or groups < FOLDS:
        raise InputError(
            f"a provider was chosen {smallest} times by {groups} users; to estimate propensities "
            f"takes at least {FOLDS} of each."
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    table = cross_val_predict(
        model, context, action, groups=user, cv=GroupKFold(FOLDS), method="predict_proba"
    )
    full = np.zeros(offered.shape)
    full[:, np.unique(action)] = table
    full = np.where(offered, full, 0)
    chosen = full[np.arange(len(action)), action] / full.sum(1)
    return np.maximum(chosen, 1e-6)
