"""The built-in strategies. Each module is the chapter on its technique."""
