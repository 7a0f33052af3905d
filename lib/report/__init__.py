"""One HTML page about a run, one summary in the terminal."""
