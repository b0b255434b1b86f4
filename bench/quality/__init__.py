"""The quality of the shipped releases, as figures with targets."""
