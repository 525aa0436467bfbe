"""Evaluation: protocols for representations, and metrics of generated images, samples and tokenizers."""
