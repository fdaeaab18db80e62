"""What is computed on a batch. Arrays, models and devices; nothing of Dask or Delta."""
