"""Training, inference and scoring: everything between the scripts and the packages data and models."""
