"""The HTTP routes below /dsm/v1/."""
