"""Hyperparameters of a learner: numbers that JAX traces, checked where a person gives them."""

import dataclasses
from typing import Any, Self, dataclass_transform

import jax
import numpy as np

from rlli_jax.checking import checked


@dataclass_transform(frozen_default=True)
class Hyperparams:
    """Base of a learner's hyperparameters: a frozen dataclass and a pytree, as flax's PyTreeNode.

    Numbers of Python and NumPy are checked against their field when an instance is made, as in
    YAML. Arrays, which hold one number for each of many settings, are taken as they are, and so is
    whatever JAX's transformations put in place of numbers: ``jax.tree.map(lambda x: None, ...)``
    gives a tree for ``in_axes``. Every field needs a default.

    Raises:
        InputError: a number is out of its field's bounds, or there is no such field.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # just made one
        names = tuple(field.name for field in fields)
        for field in fields:
            if field.default is field.default_factory is dataclasses.MISSING:
                raise TypeError(f"{cls.__name__}.{field.name} needs a default.")
        checked(cls, exempt=(jax.Array, np.ndarray))

        def flatten_with_keys(x: Any) -> tuple[tuple, None]:
            return tuple((jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in names), None

        def flatten(x: Any) -> tuple[tuple, None]:
            return tuple(getattr(x, name) for name in names), None

        def unflatten(_: None, leaves: Any) -> Any:
            new = object.__new__(cls)  # unchecked: leaves may be anything
            vars(new).update(zip(names, leaves, strict=True))
            return new

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked as a new instance unless some field is None.

        A field is None in a tree for ``in_axes`` only, whose numbers are positions of axes.
        """
        if all(value is not None for value in vars(self).values()):
            return dataclasses.replace(self, **changes)  # type: ignore[type-var]
        new = object.__new__(type(self))
        vars(new).update(vars(self) | changes)
        return new
