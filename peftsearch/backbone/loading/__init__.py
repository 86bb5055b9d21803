"""Loading a pretrained model and its tokenizer, from a folder, a `demo:` name or the Hub."""
