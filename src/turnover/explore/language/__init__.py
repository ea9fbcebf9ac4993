"""The explorer of a run of a language model: ask about responses, read and decide examples.

What asks the model, an answer or an audit, waits in the queue of work. Pages read what is kept: the
examples, the answers in ``RUN/explorer/answers``, and what the last audit measured.
"""
