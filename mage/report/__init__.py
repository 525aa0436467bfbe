"""Reports: a run folder as one HTML page."""
