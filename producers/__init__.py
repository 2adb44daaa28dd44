"""Facts come in: the sender is answered only after the fact is durable."""
