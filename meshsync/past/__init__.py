"""The past of documents in the words of their owner: who wrote what, why it counts, and what lost."""
