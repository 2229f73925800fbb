"""Studies of an environment of one's own, named by its import path."""
