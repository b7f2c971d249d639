"""What `doctor` looks at, one subject a module: each has `check(place) -> list[Check]`."""
