"""What all stages need as programs: params, arguments, atomic outputs, errors, signals, receipts (run records)."""
