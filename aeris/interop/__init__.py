"""Weights of others: read as data, checked tensor by tensor, and put into the names and orders of this package."""
