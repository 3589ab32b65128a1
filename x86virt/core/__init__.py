"""The simulated hardware: jitted functions over NumPy records. Imports only `x86virt.isa`."""
