"""Looking into a model: generated text, token probabilities, the Space and the demo."""
