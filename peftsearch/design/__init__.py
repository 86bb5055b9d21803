"""The design space of PEFT: four dimensions, modifications, configurations and exact counts."""
