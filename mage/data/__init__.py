"""Data: images from names and folders, augmentation, batches, and the token cache."""
