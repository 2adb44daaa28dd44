"""Delivery: what happened goes to those who must know it, from a durable outbox for each of them."""
