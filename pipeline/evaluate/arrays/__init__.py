"""What operations of many dialects are made of: arithmetic, products and windows on arrays."""
