"""From Python functions to Specs."""
