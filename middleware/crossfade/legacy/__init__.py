"""The sessions of the application's present framework: one reader a framework."""
