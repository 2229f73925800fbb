"""Whether a judge can be believed: does it see, keep to the scale, and answer as the persona?"""

from rlli_jax.judges.examination.verdicts import CHECKS, Check, Finding, Outcome

__all__ = ["CHECKS", "Check", "Finding", "Outcome"]
