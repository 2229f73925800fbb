"""A sweep so small that it compiles and runs in seconds, and a process of its own to run it in."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PPO = "policies.PPO.hyperparams"
USERS = 3
PROVIDERS = ("ink", "oil", "wax")


def write_sweep(folder: Path, sweep: dict[str, Any], **changes: Any) -> Path:
    """A sweep of a study with made-up scores of three users, three providers and one request."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images.csv").write_text(
        "provider,request,image\n" + "".join(f"{p},a cat,{p}.png\n" for p in PROVIDERS)
    )
    scores = ["user,provider,request,score"]
    for k in range(USERS):
        scores += [f"user {k},{p},a cat,{1 + (k + i) % 3 * 2}" for i, p in enumerate(PROVIDERS)]
    (folder / "scores.csv").write_text("\n".join(scores) + "\n")
    study = {
        "name": "tiny",
        "seeds": 2,
        "checkpoint_every": 2,
        "catalog": {"manifest": "images.csv", "pictures": False},
        "judge": {"kind": "recorded", "path": "scores.csv", "scale": "1-5"},
        "policies": {
            "PPO": {
                "learner": "ppo",
                "iterations": 6,
                "config": {"num_envs": 2, "num_steps": 6, "num_minibatches": 1, "num_epochs": 1,
                           "hidden": [4]},
            }
        },
        "evaluation": {"episodes": 4},
        "sweep": sweep,
    }  # fmt: skip
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path


DQN = {
    "learner": "dqn",
    "iterations": 6,
    "config": {"num_envs": 2, "num_steps": 6, "hidden": [4], "buffer_size": 32, "batch_size": 4,
               "warm_up": 8},
}  # fmt: skip

SCRIPT = """
import json, sys
options = json.loads(sys.argv[1])
from rlli_jax.experiments.sweeps.devices import use_host_devices
use_host_devices(options["devices"])
import jax
jax.config.update("jax_compilation_cache_dir", options["cache"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
if "process" in options:
    jax.distributed.initialize(options["address"], 2, options["process"])
    assert jax.process_count() == 2 and jax.device_count() == 2 * options["devices"]
from pathlib import Path
from rich.console import Console
from rlli_jax.studies import load_study
from rlli_jax.experiments.sweeps.run import run_sweep
assert jax.local_device_count() == options["devices"]
run_sweep(load_study(options["config"]), Path(options["output"]), "resume", Console(),
          options["engine"], options["checkpoint_seconds"])
"""


def start_sweep(config: Path, output: Path, **options: Any) -> subprocess.Popen[str]:
    """``rlli sweep CONFIG --output OUTPUT --resume`` in a process with ``devices`` devices."""
    options = {"devices": 1, "checkpoint_seconds": 0.0, "engine": "local"} | options
    options |= {"config": str(config), "output": str(output), "cache": str(config.parent / "xla")}
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if "device_count" not in flag and "multi_thread" not in flag]
    environment = os.environ | {"XLA_FLAGS": " ".join(kept), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def wait(process: subprocess.Popen[str]) -> str:
    """What it printed; fails if the process failed."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output
