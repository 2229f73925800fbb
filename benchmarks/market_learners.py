"""Every policy of configs/edge_market.yaml on the recorded AGOD fleets, and the worth of a persona.

    python benchmarks/market_learners.py --data ../shared/data/agod --seeds 8

Each fleet is a study of its own in a folder of ``--output``; what is finished is not run again, and
a run that was stopped goes on from its last checkpoint. Prints, for each fleet, mean returns on
held-out tasks with their 95 % intervals over seeds, the ratio to the offline optimum and to the
least-loaded policy, and the published ratio of the namesake.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from rlli_jax.experiments.market import study
from rlli_jax.experiments.market.config import load_market_config
from rlli_jax.experiments.run_directory import open_run
from rlli_jax.experiments.statistics import bootstrap_difference, t_interval
from rlli_jax.report.market import load_market_run, ratio, render_market

CONFIGS = Path(__file__).parent.parent / "configs"
# Test returns of Du et al. (IEEE TMC 2024) over that of their Crash Avoid, 400.
PUBLISHED = {
    "Random": -35, "Round robin": 280, "Least loaded (Crash Avoid)": 400, "Greedy (Prophet)": 596,
    "DQN": 503, "REINFORCE": 463, "PPO": 481, "SAC": 436, "D2SAC": 537,
}  # fmt: skip


def carry_out(config_file: str, path: Path, overrides: list[str], chosen: list[str]) -> Path:
    """Run a study, or go on with it, in ``path``."""
    config = load_market_config(CONFIGS / config_file, overrides)
    if chosen:
        policies = {name: config.policies[name] for name in chosen}
        config = config.model_copy(update={"policies": policies})
    console = Console()
    with open_run(path, config, "resume"):
        market = study.prepare(config, path, console)
        study.train_all(config, path, market, console)
        render_market(path)
    return path


def print_table(path: Path) -> None:
    """One line for each policy of a finished run."""
    run = load_market_run(path)
    base, crash_avoid = run.baseline, PUBLISHED["Least loaded (Crash Avoid)"]
    assert run.optimum is not None  # both configs ask for it
    print(f"\n{path.name}: offline optimum {run.optimum.mean():.1f}, {len(run.tasks)} episodes")
    columns = f"{'return':>16} {'optimum':>8} {'baseline':>8} {'published':>9} {'train':>8}"
    print(f"{'policy':34} {columns}")
    for policy in run.policies:
        value, low, high = (float(x) for x in t_interval(policy.returns))
        half = f"± {(high - low) / 2:5.1f}" if np.isfinite(low) else ""
        share = f"{float(ratio(run, policy).value):8.4f}"
        relative = f"{value / base.returns.mean():8.3f}" if base else f"{'':8}"
        known = PUBLISHED.get(policy.name)
        published = f"{known / crash_avoid:9.3f}" if known else f"{'':9}"
        seconds = f"{policy.train_seconds:7.1f}s" if policy.train_seconds else ""
        print(f"{policy.name:34} {value:8.1f} {half:7} {share} {relative} {published} {seconds}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded episodes")
    parser.add_argument("--output", type=Path, default=Path("runs/market_learners"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--fleets", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--policies", nargs="*", default=[], help="names in the config; all if none"
    )
    arguments = parser.parse_args()
    for fleet in arguments.fleets:
        file = (arguments.data / f"prophet_{fleet}.npz").resolve()
        overrides = [f"seeds={arguments.seeds}", f"market.fleet.file={file}"]
        path = arguments.output / f"fleet-{fleet}"
        print_table(carry_out("edge_market.yaml", path, overrides, arguments.policies))
    if arguments.policies:
        return
    path = arguments.output / "qoe"
    print_table(carry_out("edge_market_qoe.yaml", path, [f"seeds={arguments.seeds}"], []))
    policies = {policy.name: policy for policy in load_market_run(path).policies}
    gain = bootstrap_difference(
        policies["PPO, knowing persona and request"].returns, policies["PPO, blind"].returns
    )
    print(f"knowing persona and request: {gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})")


if __name__ == "__main__":
    main()
