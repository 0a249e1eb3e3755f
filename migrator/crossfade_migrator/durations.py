"""Durations as people read them."""


def span(seconds: float) -> str:
    """Write a duration in its two largest units: `2d 4h`, `7m 12s`, `0.8s`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
