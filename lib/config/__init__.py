"""What can be set: every parameter's type, range and help, and the values in `params.yaml`."""
