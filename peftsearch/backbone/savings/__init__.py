"""Work that a frozen backbone can leave out: lower layers, other tokens, high precision."""
