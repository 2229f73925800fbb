"""The report of a run: figures for a paper and one self-contained HTML page. Knows no JAX."""

from pathlib import Path

from rlli_jax.report import market, page
from rlli_jax.report.data import Run, load_run, read, read_config

__all__ = ["Run", "load_run", "render"]


def render(run_dir: str | Path) -> Path:
    """Write figures and page of a run of either kind of study; the path of the page.

    InputError where the run directory is incomplete or damaged.
    """
    path = Path(run_dir)
    of_a_market = (path / "config.yaml").exists() and "market" in read(
        path / "config.yaml", read_config
    )[1]
    return market.render_market(path) if of_a_market else page.render(path)
