"""What passes between the parts: records with their units, and the one place that encodes them."""
