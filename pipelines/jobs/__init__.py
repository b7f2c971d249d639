"""What the stages share that work through many videos."""
