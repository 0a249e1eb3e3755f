"""Secrets and signing keys: what is derived, what signs, what verifies."""
