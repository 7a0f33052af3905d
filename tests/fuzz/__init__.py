"""Damaged and hostile files for everything that is read: `make test-fuzz`."""
