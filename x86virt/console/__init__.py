"""How a person or a script talks to a machine: its screen, keyboard and serial ports."""
