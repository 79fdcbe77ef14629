"""How a stage behaves as a program: params, arguments, atomic outputs, errors, signals, receipts."""
