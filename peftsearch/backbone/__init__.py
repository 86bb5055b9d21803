"""The frozen pretrained model: locating its sites, and attaching modifications to them."""
