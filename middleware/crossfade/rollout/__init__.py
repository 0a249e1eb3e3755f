"""The rollout as the application sees it: one document, one revision, and who is in the cohort."""
