"""`ekko status`: whether everything runs, judged by what the processes leave in the log."""
