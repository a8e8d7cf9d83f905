"""Plans: a YAML that expands into many training runs."""
