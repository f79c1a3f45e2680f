"""The index itself: chunks, segments of them on disk, the catalogue of file versions, and generations.

Knows nothing of files on disk, of threads, or of questions.
"""
