"""What people see: the table of a run, artifacts in Prefect, charts and HTML pages."""
