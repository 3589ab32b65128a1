"""Published figures, and the script that makes the profiles from them."""
