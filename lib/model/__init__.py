"""The GPT, from scratch, and the ladder of models that leads to it."""
