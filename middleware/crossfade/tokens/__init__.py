"""Access tokens, refresh tokens, and which of them no longer count."""
