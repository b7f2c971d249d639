"""What `verify` checks, one subject a module."""
