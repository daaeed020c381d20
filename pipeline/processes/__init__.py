"""Child processes: limits, calls of our functions, the end of whole process trees."""
