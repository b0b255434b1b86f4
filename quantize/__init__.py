"""Labelled events in, a measured 4-bit release out."""
