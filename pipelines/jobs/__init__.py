"""What the stages that process many videos share."""
