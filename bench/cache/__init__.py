"""What the verdict cache saves, and what it costs in answers."""
