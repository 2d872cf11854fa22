"""Sends inference calls to Sentry as spans and transactions, and tags errors with the model that raised them."""
