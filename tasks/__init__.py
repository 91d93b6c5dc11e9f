"""Tasks: units of work, and the only place that speaks to MLflow."""
