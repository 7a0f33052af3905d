"""Configuration: the type, range and help of every parameter, and the values in `params.yaml`."""
