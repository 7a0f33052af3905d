"""Where arithmetic runs: hardware, precision, compilation, processes."""
