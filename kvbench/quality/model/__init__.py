"""What a cache costs a real model in quality: perplexity on a text, and facts found again."""
