"""Plans: one YAML, many runs."""
