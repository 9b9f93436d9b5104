"""One trial against another: item by item, and what differs between them."""
