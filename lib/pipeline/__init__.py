"""What make runs: the artifacts of a config and a text, and which of them are stale."""
