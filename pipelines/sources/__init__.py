"""Which videos a VIDEOS argument means, and their classes."""
