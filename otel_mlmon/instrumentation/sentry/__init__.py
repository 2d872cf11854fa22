"""Sentry: inference calls as its spans and transactions, errors linked to the calls that raised them."""
