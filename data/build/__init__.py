"""Building a corpus: from a YAML config of sources to cleaned Parquet, its report and its data card."""
