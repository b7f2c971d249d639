"""How much `verify` reads."""

from typing import Literal

Depth = Literal["quick", "stored", "full"]
"""quick   attributes and shapes
stored  every stored byte against its checksum, and a sample of what the bytes mean
full    everything decoded, and compared with the hash of the content"""
