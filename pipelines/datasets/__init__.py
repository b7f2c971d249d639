"""What the networks are fed: which videos there are, which split they belong to, which frames and crops of them."""
