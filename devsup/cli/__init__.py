"""Flags in, one call, one show."""
