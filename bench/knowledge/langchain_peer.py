"""LangChain, in its own environment: `python langchain_peer.py` with a job as JSON on its input, the result as output.

    {"split": {name: text}, "size": 1000, "overlap": 200}  →  [[name, start, text], …]
    {"vectors": file, "questions": file, "count": 5}       →  [[row, …], …], the nearest of each question

Vectors come from outside, so that both sides have the same embedder. Knows nothing of the sets or of Tailor.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def split(job: dict[str, Any]) -> list[list[Any]]:
    from langchain_text_splitters import RecursiveCharacterTextSplitter  # type: ignore[import-not-found]

    splitter = RecursiveCharacterTextSplitter(
        chunk_size=job["size"], chunk_overlap=job["overlap"], add_start_index=True
    )
    documents = splitter.create_documents(list(job["split"].values()), [{"name": name} for name in job["split"]])
    return [[one.metadata["name"], one.metadata["start_index"], one.page_content] for one in documents]


def search(job: dict[str, Any]) -> list[list[int]]:
    import numpy as np
    from langchain_community.vectorstores import FAISS  # type: ignore[import-not-found]
    from langchain_core.embeddings import FakeEmbeddings  # type: ignore[import-not-found]

    vectors, questions = np.load(job["vectors"]), np.load(job["questions"])
    pairs = [(str(row), vector) for row, vector in enumerate(vectors.tolist())]
    store = FAISS.from_embeddings(pairs, FakeEmbeddings(size=vectors.shape[1]))
    return [
        [int(found.page_content) for found in store.similarity_search_by_vector(question, k=job["count"])]
        for question in questions.tolist()
    ]


if __name__ == "__main__":
    job = json.load(sys.stdin)
    json.dump(split(job) if "split" in job else search(job), sys.stdout)
