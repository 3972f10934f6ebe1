"""Both, side by side: a labelled dataset in, a publication figure out."""
