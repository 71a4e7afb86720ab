"""A tour of devsup on a real app, and the small server it uses where there is none."""
