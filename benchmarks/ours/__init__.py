"""What is measured of Backchannel: a file for each kind of work, a function for each row."""
