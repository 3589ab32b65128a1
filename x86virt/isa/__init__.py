"""The instruction set as data: registers, vectors, instruction rows, events. Imports nothing of the project."""
