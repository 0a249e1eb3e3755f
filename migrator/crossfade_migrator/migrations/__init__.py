"""The schema's history, run by `crossfade db upgrade`."""
