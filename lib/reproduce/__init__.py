"""Published numbers, measured with our own code."""
