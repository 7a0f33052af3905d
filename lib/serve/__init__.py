"""HTTP: a model that many clients use at once. See docs/serve.md."""
