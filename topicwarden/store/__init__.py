"""The store: evidence on disk, in an open form, with a log that shows whether anything was changed."""
