"""Looking into a model: text generation, token probabilities, the Space and the demo."""
