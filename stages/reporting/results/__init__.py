"""The report: predictions, scores, galleries, the page."""
