"""The reference model: an encoder for each modality, one shared space, and the fusion over them."""
