"""Pictures, pages, settings, files, processes and logs."""
