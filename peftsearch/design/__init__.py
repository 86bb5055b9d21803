"""The design space of parameter-efficient fine-tuning: four dimensions, and what is made of them."""
