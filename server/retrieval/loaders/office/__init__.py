"""What Word, PowerPoint and Excel files share: the package, DrawingML, charts, equations, formats of numbers.

Knows nothing of documents or sheets.
"""
