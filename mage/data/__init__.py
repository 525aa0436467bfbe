"""Images from data sets or folders, augmented and batched; and the token cache."""
