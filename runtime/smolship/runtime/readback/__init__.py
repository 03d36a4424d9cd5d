"""Reading the weights back out of each artifact of a bundle, by parsers that share nothing with what wrote them."""
