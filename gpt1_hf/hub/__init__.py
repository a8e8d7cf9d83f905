"""What leads from a finished model to the Hub."""
