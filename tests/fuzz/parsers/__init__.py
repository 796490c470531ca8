"""Everything in distlog that reads what others have written, with examples and what it may raise: see `table.py`."""
