"""What `make` runs: the steps from a text to a report, and which of them have to run again."""
