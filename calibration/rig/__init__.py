"""Where a vehicle's sensors sit, what their lenses do, and how far apart their clocks are."""
