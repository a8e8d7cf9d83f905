"""How well a model does: metrics, perplexity, benchmark scores, and the results file that holds them."""
