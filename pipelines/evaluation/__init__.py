"""Testing a trained network: views of a video, scores per video, and the numbers made of them."""
