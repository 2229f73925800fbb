"""Every policy of configs/edge_market.yaml on the recorded AGOD fleets, and the worth of a persona.

    python benchmarks/market_learners.py --data ../shared/data/agod --seeds 8

Each fleet is a study of its own in a folder of ``--output``; what is finished is not run again, and
a run that was stopped goes on from its last checkpoint. Prints and keeps, for each policy, its
mean return on the test episodes and its ratio to the offline optimum, both with the 95 % interval
over seeds and episodes (below five seeds over episodes only, as the column ``interval`` says), the
ratio to the least-loaded policy, and the published ratio of the namesake; for all studies that are
finished in ``--output``. With ``--split tuning`` policies are judged by the tuning episodes, on
which settings are to be chosen.
"""

import argparse
import datetime
from pathlib import Path
from typing import Any

import measure
import numpy as np
from rich.console import Console

from rlli_jax import studies
from rlli_jax.report.market import load_market_run, ratio
from rlli_jax.two_way import interval_over, two_way_difference

STUDIES = ("fleet-0", "fleet-1", "fleet-2", "qoe")
CONFIGS = Path(__file__).parent.parent / "configs"
# Test returns of Du et al. (IEEE TMC 2024) over that of their Crash Avoid, 400.
PUBLISHED = {
    "Random": -35, "Round robin": 280, "Least loaded (Crash Avoid)": 400, "Greedy (Prophet)": 596,
    "DQN": 503, "REINFORCE": 463, "PPO": 481, "SAC": 436, "D2SAC": 537,
}  # fmt: skip


def carry_out(config_file: str, path: Path, overrides: list[str], chosen: list[str]) -> Path:
    """Run a study, or go on with it, in ``path``."""
    config = studies.load_study(CONFIGS / config_file, overrides)
    if chosen:
        policies = {name: config.policies[name] for name in chosen}
        config = config.model_copy(update={"policies": policies})
    studies.carry_out(config, path, "resume", Console())
    studies.render(path)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    """One row for each policy of a finished run, with 95 % intervals."""
    run = load_market_run(path)
    base, crash_avoid = run.baseline, PUBLISHED["Least loaded (Crash Avoid)"]
    assert base is not None  # both configs have it
    machine = {"cpu": measure.cpu(), "date": f"{datetime.date.today()}"}
    rows = []
    for policy in run.policies:
        value, low, high = (round(float(x), 2) for x in policy.mean("returns"))
        of_optimum, optimum_low, optimum_high = (round(float(x), 4) for x in ratio(run, policy))
        known = PUBLISHED.get(policy.name)
        rows.append(
            {
                "run": path.name,
                "policy": policy.name,
                "seeds": len(policy.returns),
                "split": run.split,
                "episodes": len(run.tasks),
                "interval": interval_over(len(policy.returns), len(run.tasks)) or "",
                "env_steps": policy.env_steps or "",
                "return": value,
                "low": low if np.isfinite(low) else "",
                "high": high if np.isfinite(high) else "",
                "of_optimum": of_optimum,
                "of_optimum_low": optimum_low if np.isfinite(optimum_low) else "",
                "of_optimum_high": optimum_high if np.isfinite(optimum_high) else "",
                "over_crash_avoid": round(value / float(base.returns.mean()), 3),
                "published": known / crash_avoid if known else "",
                "finished": round(float(policy.share("finished").value), 4),
                "crashed": round(float(policy.share("crashed").value), 4),
                "lost": round(float(policy.share("lost").value), 4),
                "train_s": round(policy.train_seconds, 1) if policy.train_seconds else "",
            }
            | machine
        )
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the recorded episodes")
    parser.add_argument("--output", type=Path, default=Path("runs/market_learners"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=STUDIES)
    parser.add_argument(
        "--policies", nargs="*", default=[], help="names in the config; all if none"
    )
    parser.add_argument("--split", choices=("test", "tuning"), default="test")
    parser.add_argument("--suffix", default="", help="of the folder, for a part of the policies")
    arguments = parser.parse_args()
    for study_name in arguments.studies:
        path = arguments.output / (study_name + arguments.suffix)
        overrides = [f"seeds={arguments.seeds}", f"evaluation.split={arguments.split}"]
        if study_name == "qoe":
            carry_out("edge_market_qoe.yaml", path, overrides, arguments.policies)
        else:
            recording = f"prophet_{study_name.removeprefix('fleet-')}.npz"
            overrides.append(f"market.fleet.file={(arguments.data / recording).resolve()}")
            carry_out("edge_market.yaml", path, overrides, arguments.policies)
    finished = [p for p in sorted(arguments.output.iterdir()) if (p / "report.html").exists()]
    rows = [row for path in finished for row in rows_of(path)]
    print(measure.table(rows))
    measure.keep(rows, arguments.results / "market_learners.csv")
    if (arguments.output / "qoe") not in finished:
        return
    policies = {p.name: p for p in load_market_run(arguments.output / "qoe").policies}
    gain = two_way_difference(
        policies["PPO, knowing persona and request"].sums["returns"],
        policies["PPO, blind"].sums["returns"],
    )
    print(f"knowing persona and request: {gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})")


if __name__ == "__main__":
    main()
