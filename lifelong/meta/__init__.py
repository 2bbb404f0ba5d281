"""Initialisations that are learned: meta-learned, or pre-trained on other classes. One method a file."""
