"""Rules for lists: filters, boosts, caps and diversity by the metadata of the items."""
