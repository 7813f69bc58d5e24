"""How predictions are scored: measures, scorers, tables, and the commands that show them."""
