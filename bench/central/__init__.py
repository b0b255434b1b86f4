"""What the centre's README claims, measured."""
