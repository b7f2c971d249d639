"""Files: written whole, read with care, and what stands in them."""
