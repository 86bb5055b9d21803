"""Texts → tokens: encoding, the cache on disk, transfer to the device."""
