"""Data sets, tasks made of their rows, mixtures, preparation and cached features."""
