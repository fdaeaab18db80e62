"""One file a format: what of a release goes into which file."""
