"""Results for people: the report, its pictures, figures and scores."""
