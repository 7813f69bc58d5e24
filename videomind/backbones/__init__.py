"""What is a backbone's own, one declaration each: classes, positions, tokenizer and template, key names."""
