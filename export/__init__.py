"""From a definition in PyTorch to an int8 bundle, and the procedural world that it is trained on."""
