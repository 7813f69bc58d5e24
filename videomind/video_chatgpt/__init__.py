"""The second model family whole (arXiv 2306.05424): CLIP features, conversations, model, training, answers, judge."""
