"""A long, mixed load on one machine, and what is measured meanwhile."""
