"""Serving: one engine that answers many requests at once, and the routes in front of it."""
