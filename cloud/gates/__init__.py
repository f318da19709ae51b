"""Gates: what a release must pass before any vehicle hears of it, cheapest first."""
