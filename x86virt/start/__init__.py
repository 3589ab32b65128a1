"""How a machine starts: kernels and firmware of every kind, and what stands in RAM and registers before they run."""
