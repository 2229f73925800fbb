"""Language models as teachers and as policies."""
