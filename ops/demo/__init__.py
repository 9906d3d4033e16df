"""A real recommender that trains online while two regions serve its parameters."""
