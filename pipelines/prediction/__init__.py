"""From a video straight to classes: what evaluating its stored frames and flow would give, with nothing stored."""
