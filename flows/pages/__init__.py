"""Shows results to people: the table of a run, artifacts in Prefect, charts and HTML pages."""
