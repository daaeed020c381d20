"""What tools print and how they end, as failures with signatures."""
