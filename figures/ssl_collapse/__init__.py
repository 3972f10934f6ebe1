"""Self-supervised learning: which modes of an encoder live, how strong they are, and what removes them."""

FIGURES = {}
