"""Models on disk: the parts of a model, and the folder that holds them."""
