"""What gets a program past a failure today: flags and rewrites, tried and compared."""
