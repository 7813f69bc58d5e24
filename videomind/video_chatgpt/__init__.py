"""The second model family (arXiv 2306.05424): CLIP features, conversations, model, training, chat, judge."""
