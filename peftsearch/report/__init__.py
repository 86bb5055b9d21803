"""One self-contained HTML file about a study: a figure a card."""
