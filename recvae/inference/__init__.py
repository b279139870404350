"""From item ids to ranked lists: one user, a batch, or every user of a file."""
