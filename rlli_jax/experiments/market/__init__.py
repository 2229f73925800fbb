"""Studies of the edge market: every policy on one fleet and on the same tasks."""
