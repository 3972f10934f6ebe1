"""What does happen: jitted simulations of the systems in `theory`, and the engine that sweeps them."""
