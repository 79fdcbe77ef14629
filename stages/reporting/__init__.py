"""What people see: the report, its pictures, figures and scores."""
