"""What a person runs or schedules: a page of calls each, and the command line."""
