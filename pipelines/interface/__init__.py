"""What the command line is made from: the options of a stage, and numbers in words."""
