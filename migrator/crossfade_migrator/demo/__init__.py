"""The demonstration: a shop from before Crossfade, its customers, and a rollout there and back."""
