"""The frozen pretrained model: where its places are, and attaching modifications to them."""
