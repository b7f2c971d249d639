"""One module per command, which is the function in it."""
