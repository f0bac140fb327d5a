"""What the documents promise, sentence by sentence, as somebody outside would check it: public API, real engine."""
