"""The commands that trace, compile and run a program."""
