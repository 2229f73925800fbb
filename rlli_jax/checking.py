"""Values that a person gave, checked by pydantic; a mistake is one sentence, in YAML and Python."""

import difflib
import functools
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from rlli_jax.errors import InputError, shown

UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # pydantic's types of error
T = TypeVar("T")


def renamed(name: str, *older: str) -> Any:
    """For ``Annotated``: a field that config files of before name otherwise."""
    return Field(validation_alias=AliasChoices(name, *older))


def checked(cls: type[T], exempt: tuple[type, ...] = ()) -> type[T]:
    """Class decorator: a dataclass that checks the types and bounds of its fields when it is made.

    What pydantic checks in a YAML file is so checked in Python too, with the same sentence. It goes
    above ``@dataclass``. Unknown fields are refused; NumPy's scalars count as numbers. Values of
    ``exempt`` types are taken as they are, for fields that have a default.

    Raises:
        InputError: when an instance is made with a value that its field does not allow.
    """
    assert is_dataclass(cls)
    cls.__pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # type: ignore[attr-defined]
    made = cls.__init__
    signature = inspect.signature(made)
    adapter = functools.cache(lambda: TypeAdapter(cls))  # takes milliseconds to build

    @functools.wraps(made)
    def __init__(self: T, *args: Any, **kwargs: Any) -> None:
        unknown = {name: kwargs.pop(name) for name in kwargs.keys() - signature.parameters.keys()}
        given = signature.bind(self, *args, **kwargs).arguments
        given.pop("self")
        taken = {name: value for name, value in given.items() if isinstance(value, exempt)}
        content = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in (given | unknown).items()
            if name not in taken
        }
        try:
            parsed = adapter().validate_python(content)  # without a call of __init__
        except ValidationError as error:
            sentence = one_sentence(error, content, cls)
            raise InputError(f"{cls.__name__}: {sentence}") from None
        vars(self).update(vars(parsed) | taken)

    cls.__init__ = __init__  # type: ignore[method-assign,assignment]
    return cls


def one_sentence(
    error: ValidationError,
    content: dict[str, Any],
    kind: type,
) -> str:
    """The first problem as one sentence with the path of the key in the file.

    ``kind``: the class of the whole file.
    """
    problems = error.errors()
    # An unknown key is the likeliest cause of whatever else is wrong with its block.
    problem = next((p for p in problems if p["type"] in UNKNOWN_KEY), problems[0])
    loc = problem["loc"]
    keys: list[str] = []
    here: Any = content
    for i, part in enumerate(loc):
        if isinstance(here, dict | list):
            try:
                here = here[part]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                if problem["type"] != "missing" or i + 1 < len(loc):
                    continue  # pydantic's name of an alternative, not a key of the file
            keys.append(str(part))
    where = ".".join(keys)
    if problem["type"] in UNKNOWN_KEY:
        known = list(_keys(*_block_at(kind, content, keys[:-1])))
        return f"{where}: unknown key{_suggestion(keys, known)}."
    if problem["type"] == "missing":
        return f"{where}: this key is missing; add it."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    given = problem["input"]
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = _tags(_block_at(kind, content, keys)[0])
        where, message = f"{where}.kind", f"must be one of {', '.join(tags)}"
        given = given.get("kind") if isinstance(given, dict) else given
    if problem["type"] == "sequence_str" or problem.get("ctx", {}).get("class") == "Sequence":
        message = "must be a list"
    message = message.replace("Input should be", "must be", 1)
    plain = isinstance(given, str | int | float | None)
    told = f" (given: {shown(given)})" if plain else ""
    if not where:  # a rule between blocks: its message names the key
        return f"{message}."
    return f"{where}: {message[0].lower() + message[1:]}{told}."


def _suggestion(keys: Sequence[str], known: Sequence[str]) -> str:
    """``, did you mean ...?`` for a misspelt key, and what keys there are."""
    key = keys[-1].lower()
    # A typing error is seldom in the first letter, and names of other things resemble by chance.
    close = difflib.get_close_matches(key, [name for name in known if name[0] == key[0]], 1)
    meant = f", did you mean {close[0]}? T" if close else "; t"
    return f"{meant}he keys here are {', '.join(known)}"


def _block_at(kind: Any, content: Any, path: Sequence[str]) -> tuple[Any, Any]:
    """Type and content of the block at ``path``; ``kind``: the type of ``content``."""
    for key in path:
        kind, content = _inner(kind, content, key), _at(content, key)
    return kind, content


def _inner(kind: Any, content: Any, key: str) -> Any:
    """The type of a key of ``content``."""
    for member in _members(kind):
        if get_origin(member) is dict:
            return get_args(member)[1]
        if get_origin(member) in (list, tuple) and isinstance(content, list | tuple):
            return get_args(member)[0]
    return _keys(kind, content).get(key)


def _keys(kind: Any, content: Any) -> dict[str, Any]:
    """The keys that ``content`` may have, with their types.

    ``kind``: the type of ``content``; of a union the members that fit, by keys like ``learner``.
    """
    known: dict[str, Any] = {}
    for member in _members(kind):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if hasattr(member, "for_content"):  # its keys depend on what else is in the block
                member = member.for_content(content)
                if member is None:
                    continue
            block = {name: field.annotation for name, field in member.model_fields.items()}
            tags = {n: get_args(a) for n, a in block.items() if get_origin(a) is Literal}
            if all(_at(content, n) in (None, *tags[n]) for n in ("kind", "learner") if n in tags):
                known |= block
        elif is_dataclass(member):
            hints = get_type_hints(member)
            known |= {field.name: hints[field.name] for field in fields(member) if field.init}
    return known


def _tags(kind: Any) -> list[str]:
    """What the key ``kind`` of a block may be, which tells the members of a union apart."""
    blocks = [m for m in _members(kind) if isinstance(m, type) and issubclass(m, BaseModel)]
    return [tag for m in blocks for tag in get_args(m.model_fields["kind"].annotation)]


def _members(kind: Any) -> list[Any]:
    """The alternatives of a type, without what is annotated."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _at(content: Any, key: str) -> Any:
    if isinstance(content, list | tuple):
        return content[int(key)]
    return content.get(key) if isinstance(content, dict) else None


def owner(key: str, names: Iterable[str], block: str = "policies") -> str | None:
    """The policy that a key of a study, such as ``policies.PPO.iterations``, belongs to.

    The name of a policy may hold dots: the longest that fits is meant. None for any other key.
    ``names``: of the policies, or of what else the ``block`` holds.
    """
    fitting = [name for name in names if f"{key}.".startswith(f"{block}.{name}.")]
    return max(fitting, key=len, default=None)
