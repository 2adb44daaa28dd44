"""What the pages say, one table per language. `tests/unit/consumers/test_pages_text.py` compares them."""
