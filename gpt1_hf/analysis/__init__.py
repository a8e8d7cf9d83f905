"""The paper's analyses (§5), zero-shot or as plans of runs, and the report on them."""
