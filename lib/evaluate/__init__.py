"""How good a model is, compared with what, and how sure we are."""
