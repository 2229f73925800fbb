"""Blocks of a study's file: YAML, checked key by key. A mistake gives one sentence with the path
of the key."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from rlli_jax.checking import one_sentence
from rlli_jax.errors import InputError, why


def _whole(value: Any) -> Any:
    """5e6 is a float in YAML, but a whole number all the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, Field(strict=True), BeforeValidator(_whole)]  # not true, not "3"
Positive = Annotated[Whole, Field(gt=0)]
Seed = Annotated[Whole, Field(ge=-(2**63), lt=2**63)]  # of JAX's keys, which hold 64 bits
NumpySeed = Annotated[Whole, Field(ge=0)]
UNKNOWN_TRAITS = (
    "persona is the users' personality, of which recorded scores alone tell nothing; remove it"
)
NAMED = ("policies", "methods", "cases")  # blocks whose keys are names that the user chose


class Block(BaseModel):
    """A block of the file: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


AnyBlock = TypeVar("AnyBlock", bound=Block)
T = TypeVar("T")


class StudyBlock(Block):
    """What every study has."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the study; its run directory is runs/<name> if none is given."""
    kind: str
    """Which kind of study: a name of STUDIES, or the import path package.module:name of a
    rlli_jax.studies.StudyKind. Where it is missing, what else the file holds tells it."""
    description: str = ""
    """One or two sentences that the report shows."""
    seed: Seed = 0
    """All random numbers of the study follow from it."""

    def asks(self) -> "StudyBlock | None":
        """The study whose judge is asked: this one, if it has a judge."""
        return self if getattr(self, "judge", None) is not None else None

    def asks_more(self, inquiry: Any) -> str:
        """What is asked beside the table, in words; empty if nothing.

        ``inquiry``: a :class:`rlli_jax.experiments.sources.Inquiry`.
        """
        return ""

    def dump(self) -> dict[str, Any]:
        """The resolved config as plain values, as ``config.yaml`` holds it."""
        return self.model_dump(mode="json", exclude_none=True)


class TrainedBlock(StudyBlock):
    """What every study has whose policies learn in an environment; ``policies`` is its own."""

    seeds: Positive = 10
    """Runs of every policy, side by side."""
    checkpoint_every: Positive = 25
    """Iterations between checkpoints: at most these are lost."""
    if TYPE_CHECKING:
        policies: dict[str, Any]

    @model_validator(mode="after")
    def _file_names(self) -> Self:
        for name in self.policies:
            require_file_name("policies", name, "folder")
        return self


def each_once(values: Sequence[T]) -> tuple[T, ...]:
    """The values; raises ValueError if one is there twice."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{value!r} is there twice; name each once")
    return tuple(values)


def exactly_one(block: BaseModel, names: Sequence[str]) -> None:
    """Raise ValueError unless one of the fields ``names`` has a value that is not empty."""
    given = [name for name in names if getattr(block, name)]
    if len(given) != 1:
        raise ValueError(
            f"give exactly one of {', '.join(names)}; "
            f"here {'none is' if not given else ' and '.join(given) + ' are'} given"
        )


def require_file_name(key: str, name: str, what: str) -> None:
    """Raise ValueError unless a ``what``, a file or a folder, can have this name."""
    if not name.strip() or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise ValueError(f"{key}: {name!r} cannot be the name of a {what}; choose another name")


def beside_file(path: Path | None, info: ValidationInfo) -> Path | None:
    """Paths in a file are meant relative to the folder of that file."""
    folder = (info.context or {}).get("folder")
    return path if path is None or folder is None else (folder / path).resolve()


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently drop one.

    Reads 1e-3 and 5e6 as the numbers that they are in YAML 1.2 and everywhere else; PyYAML speaks
    YAML 1.1, where a number with an exponent needs a point and a sign, and all else is text.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value for key in keys]
        for i, key in enumerate(keys):
            if key.value in names[:i]:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is there twice", problem_mark=key.start_mark
                )
        return node


class _Dumper(yaml.SafeDumper):
    """Writes text that looks like such a number in quotes, or it would be read as a number."""


_EXPONENT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def from_yaml(text: str) -> Any:
    """Plain values. Raises yaml.YAMLError."""
    return _unshared(yaml.load(text, _Loader))


def _unshared(tree: Any) -> Any:
    """A copy without shared parts: YAML's anchors would change several places at once."""
    if isinstance(tree, Mapping):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, list) else tree


def to_yaml(content: Any) -> str:
    """What :func:`from_yaml` reads as ``content`` again."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def folder_of(path: Path) -> Path:
    """What paths in a file are relative to: its folder, or of a pipe the working directory."""
    return path.resolve().parent if path.is_file() else Path.cwd()


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values of a config file, with overrides on top. Raises InputError as above."""
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        order = "; name the config first, and behind it what to change" if "=" in path.name else ""
        raise InputError(f"{path}: there is no such config file{order}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a config, a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({why(error)}).") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}{where}: malformed YAML, {problem}.") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: a config is a mapping of keys to values; see configs/paper.yaml."
        )
    learners = learners_of(content)
    for override in overrides:
        apply_override(content, override)
    if any(learners_of(content).get(name, given) != given for name, given in learners.items()):
        from rlli_jax.experiments.policies import fit_to_learner  # which knows this module

        paths = [override.partition("=")[0] for override in overrides]
        for name, before in learners.items():
            block = content["policies"].get(name)
            if isinstance(block, dict) and block.get("learner") != before:
                fit_to_learner(block, f"policies.{name}", paths)
    return content


def learners_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The learner of each policy of a file."""
    policies = content.get("policies")
    blocks = policies.items() if isinstance(policies, dict) else ()
    return {name: block["learner"] for name, block in blocks
            if isinstance(block, dict) and "learner" in block}  # fmt: skip


def parse_as(kind: type[AnyBlock], content: Any, *, source: str, folder: Path | None) -> AnyBlock:
    """Check plain values; paths in them are relative to ``folder``.

    Raises:
        InputError: one sentence that names the source, the key's path and what to do.
    """
    try:
        return kind.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        raise InputError(f"{source}: {one_sentence(error, content, kind)}") from None


def load_as(kind: type[AnyBlock], path: str | Path, overrides: Sequence[str] = ()) -> AnyBlock:
    """Read a study of one kind from YAML, with overrides ``key.path=value`` on top.

    Raises:
        InputError: one sentence that names the file, the key's path and what to do.
    """
    path = Path(path)
    content = read_yaml(path, overrides)
    return parse_as(kind, content, source=str(path), folder=folder_of(path))


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in place; the value is read as YAML."""
    path, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in path.split(".")):
        raise InputError(f"override '{override}': write key.path=value, such as seeds=3.")
    try:
        value = from_yaml(text)
    except yaml.YAMLError:
        raise InputError(f"override '{override}': the value is malformed YAML.") from None
    set_key(content, path, value, f"override '{override}'")


def set_key(content: dict[str, Any], path: str, value: Any, source: str) -> None:
    """Set the key ``a.b.c`` in place; missing blocks on the way are made. An element of a list is
    named by its ``name``, or by its place from 0.

    Raises:
        InputError: the path leads through a value, to no element of a list, through a key that is
            there in another spelling (capitals), or into a policy (a method, a case) that is not
            there.
    """
    parts, outer = path.split("."), ""
    while True:
        # A key (the name of a policy) may hold dots: the longest one that is there is meant.
        lengths = range(len(parts), 0, -1)
        length = next((n for n in lengths if ".".join(parts[:n]) in content), 1)
        key, parts = ".".join(parts[:length]), parts[length:]
        where = f"{outer}.{key}".lstrip(".")
        if key not in content:
            _refuse_misspelt(content, key, outer, parts, source)
        if not parts:
            content[key] = value
            return
        inner = content.setdefault(key, {})
        if isinstance(inner, list):
            inner, parts, where = _element(inner, parts, where, source)
        if not isinstance(inner, dict):
            raise InputError(f"{source}: {where} is a value, not a block of keys.")
        content, outer = inner, where


def _element(
    content: list[Any], parts: list[str], outer: str, source: str
) -> tuple[Any, list[str], str]:
    """What ``parts`` begin with in a list, what is left of them, and where that is."""
    names = [item.get("name") if isinstance(item, dict) else None for item in content]
    for length in range(len(parts) - 1, 0, -1):  # something is left to name a key inside
        name = ".".join(parts[:length])
        place = names.index(name) if name in names else int(name) if name.isdecimal() else -1
        if 0 <= place < len(content):
            return content[place], parts[length:], f"{outer}.{name}"
    known = ", ".join(str(n) if n is not None else str(i) for i, n in enumerate(names))
    raise InputError(
        f"{source}: {outer} is a list; write {outer}.NAME.key, with a name or a place: {known}."
    )


def _refuse_misspelt(
    content: dict[str, Any], key: str, outer: str, parts: Sequence[str], source: str
) -> None:
    """InputError if ``outer.key``, which is not there, is most likely meant to be one that is."""
    names = {str(name).casefold(): str(name) for name in content}
    inside = outer in NAMED and parts and parts[0] != "learner"
    if not inside and key.casefold() not in names:
        return
    prefix = f"{outer}." if outer else ""
    missing = f"{source}: there is no {prefix}{key}"
    if not inside:
        raise InputError(f"{missing}; write {prefix}{names[key.casefold()]}.")
    close = difflib.get_close_matches(key.casefold(), names, 1)
    meant = f", did you mean {prefix}{names[close[0]]}? T" if close else "; t"
    listed = ", ".join(f"'{name}'" for name in names.values())
    raise InputError(
        f"{missing}{meant}he {outer} are {listed}; a new one needs its whole block, "
        f"{prefix}{key}={{...}}."
    )
