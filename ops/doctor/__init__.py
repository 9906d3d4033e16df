"""`ekko doctor`: examines how this machine and the clusters are set up, and tells the fix for what is wrong."""
