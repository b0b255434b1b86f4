"""The warehouse: all verdicts and answers as Parquet by day, in a folder or on S3, and views of them for SQL."""
