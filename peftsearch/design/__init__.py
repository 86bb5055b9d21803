"""The design space of PEFT: four dimensions, and what is made of them."""
