"""Import and export of whole tables: npz, safetensors and Parquet files, in chunks, exact."""
