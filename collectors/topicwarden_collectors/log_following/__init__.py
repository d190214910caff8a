"""Following log files through rotation, truncation and restarts, whatever their lines mean."""
