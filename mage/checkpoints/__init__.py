"""Models on disk: our folders, the hub, and the released files."""
