"""Studies: search spaces, the YAML grammar, and the plan of trials."""
