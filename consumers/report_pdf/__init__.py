"""A report on paper: the same words as on the pages, under the letterhead of the site that wrote it."""
