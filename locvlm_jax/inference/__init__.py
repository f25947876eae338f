"""From a question to an answer: decoding, and the predictor around it."""
