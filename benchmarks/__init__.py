"""The benchmarks: guest kernels, and the published figures that profiles are made from."""
