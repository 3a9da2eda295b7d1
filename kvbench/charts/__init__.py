"""What a reader sees of rows: charts, their sentences, the table and the report. Nothing is computed here."""
