"""The parts of an Excel file: its shared texts, rows, tables, and what lies beside them. Knows nothing of other
files."""
