"""What was published, held against what the simulator predicts: the figures of `benchmarks/reference/published.csv`."""
