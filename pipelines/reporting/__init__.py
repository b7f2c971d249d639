"""What is made of the scores for people: tables, plots and one HTML page."""
