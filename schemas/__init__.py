"""What a row is: Arrow schemas, identities, validation, policies and the pipeline file. No I/O, no torch."""
