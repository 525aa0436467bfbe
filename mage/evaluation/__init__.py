"""Evaluation: features and what they are worth, images and how real they look."""
