"""The parts of a Word document: styles, numbers, fields, text, notes. Knows nothing of blocks or their headings."""
