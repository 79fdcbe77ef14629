"""How a stage behaves as a program: params, arguments, outputs whole or not at all, errors, signals, receipts."""
