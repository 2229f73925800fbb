"""The report of a run: figures for a paper and one self-contained HTML page. Knows no JAX."""

from pathlib import Path

from rlli_jax.report import market, page, sweep, teaching
from rlli_jax.report.data import Run, load_run, read, read_config

__all__ = ["Run", "load_run", "render"]


def render(run_dir: str | Path) -> Path:
    """Write figures and page of a run of any kind of study, or of a sweep; the path of the page.

    InputError where the run directory is incomplete or damaged.
    """
    path = Path(run_dir)
    if (path / "sweep.yaml").exists():
        return sweep.render_sweep(path)
    keys = read(path / "config.yaml", read_config)[1] if (path / "config.yaml").exists() else {}
    if "market" in keys:
        return market.render_market(path)
    if "methods" in keys:
        return teaching.render_teaching(path)
    return page.render(path)
