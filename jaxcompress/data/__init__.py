"""What is trained on: generators and corpora.

Nothing is imported here: `data.text` brings in `transformers`, which takes seconds.
"""

__all__: list[str] = []
