"""Tokenisation: encoding texts, the cache on disk, transfer to the device."""
