"""Publishing models on the Hub: model cards and uploads."""
