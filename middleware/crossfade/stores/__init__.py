"""What Crossfade keeps. SQL is the truth (ADR 0005); the Protocols live with those who use them."""
