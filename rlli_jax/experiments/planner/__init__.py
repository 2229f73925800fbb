"""Studies of a planner that names goals above a low level that follows them."""
