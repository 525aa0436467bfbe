"""Training: one loop for everything that learns, and the tasks it runs."""
