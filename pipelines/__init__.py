"""The `stres` library: every stage of the spatiotemporal residual network pipeline, without a command line."""

__version__ = "0.2.0"
