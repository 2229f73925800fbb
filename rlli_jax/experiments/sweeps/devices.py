"""Host devices: one for every CPU core, so that a sweep on the CPU uses them all.

Imports no JAX: XLA reads these settings when JAX first asks for devices.
"""

import os


def use_host_devices(count: int | None = None) -> None:
    """Split the CPU into ``count`` JAX devices; as many as this process may use cores if absent.

    Call it before anything touches JAX. What the user has set in ``XLA_FLAGS`` stays.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = {
        "--xla_force_host_platform_device_count": str(count or cores or 1),
        # Where every core has a device, threads that devices share only wait for each other.
        "--xla_cpu_multi_thread_eigen": "false",
    }
    flags = os.environ.get("XLA_FLAGS", "")
    new = [f"{flag}={value}" for flag, value in wanted.items() if flag not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *new]).strip()
