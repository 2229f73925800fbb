"""A teaching study: a config becomes a run directory with the paper's comparison and a page."""
