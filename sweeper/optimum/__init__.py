"""Where the best point lies: at the edge of what was tried, or inside it, and how surely."""
