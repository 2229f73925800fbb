"""Whether a judge can be believed: does it see, keep to the scale, and answer as the persona?"""

from rlli_jax.judges.examination.verdicts import CHECKS
from rlli_jax.run_files.examination import Check, Finding, Outcome

__all__ = ["CHECKS", "Check", "Finding", "Outcome"]
