"""The original tokenizer's rules: generated tables, and the script that generates them."""
