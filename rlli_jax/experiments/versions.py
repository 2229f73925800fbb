"""What a result depends on beside its config: versions, the device, and settings of JAX.

What is resumed with the same of all ends bit for bit where it would have ended. With another
version it may not, which is said and recorded. With other settings it does not, and shapes and
types of a state may not even fit: that is refused.
"""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version

import jax

import rlli_jax
from rlli_jax.errors import InputError
from rlli_jax.run_files.versions import Versions

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "distrax", "numpy", "scikit-image")
SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)
SAME = ("rlli_jax", "jax", "jaxlib", "flax", "optax", "numpy", "device")


def versions(command: str = "") -> Versions:
    """Versions, the device and :func:`settings`."""
    device = jax.devices()[0]
    return Versions.checked(
        {
            "rlli_jax": rlli_jax.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
            "device": f"{device.device_kind} ({jax.device_count()} x {device.platform})",
            "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
            **settings(),
            "command": command,
        }
    )


def settings() -> dict[str, str]:
    """The settings of JAX on which numbers depend."""
    return {name: str(getattr(jax.config, name)) for name in SETTINGS}


def require_settings(what: str, before: Mapping[str, str]) -> None:
    """See that the settings are those with which something was begun.

    Settings that were not recorded, as by earlier versions, are not compared.

    Raises:
        InputError: one differs.
    """
    for name, now in settings().items():
        if name in before and before[name] != now:
            value, variable = before[name], name.upper()
            how = f"unset {variable}" if value == "None" else f"set {variable}={value}"
            raise InputError(
                f"{what} was begun with {name} {value}, and now it is {now}: {how} to go on, or "
                "start anew in another directory."
            )


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Versions that are not those of the beginning, for people."""
    return [
        f"{name} {before[name]}, now {now[name]}"
        for name in SAME
        if name in before and _plain(before[name]) != _plain(now[name])
    ]


def _plain(value: str) -> str:
    """Without the number of devices, on which results do not depend."""
    return re.sub(r"\(\d+ x ", "(", value)
