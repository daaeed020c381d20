"""Parts of operations of many dialects: arithmetic, products and windows on arrays."""
